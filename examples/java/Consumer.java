// Keep a table of users from Muster's two topics, and print it at the end. ../README.md says what happens when.

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.databind.*;
import java.io.IOException;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Stream;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.*;

public class Consumer {
    /** A null user is gone. Their version stays, so that nothing older brings them back. */
    record Event(long version, JsonNode user) {}

    static final Set<String> KNOWN = Set.of("muster.UserCreated", "muster.UserUpdated", "muster.UserDeleted");
    static final ObjectMapper JSON = new ObjectMapper().enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);
    static final Map<String, Event> users = new TreeMap<>();
    // no group: the table is in memory, so each start reads from the beginning, and no offset is committed
    static final KafkaConsumer<String, byte[]> consumer = new KafkaConsumer<>(
            Map.of("bootstrap.servers", env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"),
                    "enable.auto.commit", false, "isolation.level", "read_committed"),
            new StringDeserializer(), new ByteArrayDeserializer());

    /** Null: of a type that is not known here. */
    static Event eventOf(ConsumerRecord<String, byte[]> record) throws IOException {
        String kind = header(record, "ce_type").replaceFirst("\\.v\\d+$", ""); // of any version: a new one adds fields
        if (record.value() != null && !KNOWN.contains(kind)) return null;
        long version = Long.parseLong(header(record, "ce_userversion"));
        if (record.key() == null) throw new IOException("no key");
        if (record.value() == null) return new Event(version, null);
        JsonNode user = JSON.readTree(record.value()).get("user");
        if (user == null || !user.isObject()) throw new IOException("no user");
        return new Event(version, kind.equals("muster.UserDeleted") ? null : user);
    }

    static String header(ConsumerRecord<?, ?> record, String name) throws IOException {
        for (var header : record.headers().headers(name)) return new String(header.value(), UTF_8);
        throw new IOException("no " + name);
    }

    /** Take what is newer; `complete`: of a topic with every version, so that one left out is worth a word. */
    static void apply(String id, Event next, boolean complete) {
        Event held = users.getOrDefault(id, new Event(0, null));
        boolean takesAway = next.user == null || next.user.path("erased").asBoolean();
        if (next.version < held.version) return;
        // what takes away counts at the version held, too: a user is erased without a new version
        if (next.version == held.version && !(takesAway && held.user != null)) return;
        if (complete && next.version > held.version + 1) {
            System.err.printf("gap: user %s goes from version %d to %d%n", id, held.version, next.version);
        }
        users.put(id, next);
    }

    /** Apply a topic from its beginning: for ever or, with `toEnd`, to where it ends now. */
    static void read(String topic, boolean toEnd, boolean complete) {
        var infos = consumer.partitionsFor(topic);
        var partitions = infos.stream().map(info -> new TopicPartition(topic, info.partition())).toList();
        consumer.assign(partitions);
        consumer.seekToBeginning(partitions);
        var ends = consumer.endOffsets(partitions);
        while (!toEnd || partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
            for (ConsumerRecord<String, byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                try {
                    Event event = eventOf(record);
                    if (event != null) apply(record.key(), event, complete);
                } catch (IOException | NumberFormatException error) {
                    String why = error.getMessage().lines().findFirst().orElse("");
                    System.err.printf("passed over %s-%d@%d: %s%n", topic, record.partition(), record.offset(), why);
                }
            }
        }
    }

    /** As in PostgreSQL's COPY: \N is null; a tab, a line's end and a backslash are escaped with a backslash. */
    static String text(String value) {
        if (value == null) return "\\N";
        return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r");
    }

    static int print() {
        users.forEach((id, event) -> {
            if (event.user == null) return;
            var columns = Stream.of("status", "email", "display_name").map(name -> event.user.path(name).textValue());
            String row = id + "\t" + event.version + "\t" + String.join("\t", columns.map(Consumer::text).toList());
            System.out.writeBytes((row + "\n").getBytes(UTF_8)); // whatever the locale says
        });
        return 0;
    }

    static String env(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }

    public static void main(String[] arguments) {
        var exitCode = new CompletableFuture<Integer>();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            Runtime.getRuntime().halt(exitCode.join()); // a JVM that a signal ends would say 143
        }));
        try (consumer) {
            // the compacted topic first: it has everybody, however old; of the events those known are skipped
            read(env("SNAPSHOT_TOPIC", "users.snapshot.v1"), true, false);
            read(env("EVENTS_TOPIC", "users.events.v1"), env("UNTIL_END", "").equals("1"), true);
            exitCode.complete(print());
        } catch (WakeupException stopped) {
            exitCode.complete(print()); // the records in hand are done
        } finally {
            exitCode.complete(1); // unless it is 0 already
        }
    }
}
