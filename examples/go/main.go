// Keep a table of users from Muster's two topics, and print it at the end. ../README.md says what happens when.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

type user struct {
	version       int
	gone          bool
	Status, Email *string
	DisplayName   *string `json:"display_name"`
	Erased        bool
}

var known = []string{"muster.UserCreated", "muster.UserUpdated", "muster.UserDeleted"}

func userOf(record *kgo.Record) (*user, error) {
	headers := map[string]string{}
	for _, header := range record.Headers {
		headers[header.Key] = string(header.Value)
	}
	kind, _, _ := strings.Cut(headers["ce_type"], ".v") // without the schema's version: a new one adds fields
	version, err := strconv.Atoi(headers["ce_userversion"])
	switch {
	case kind != "" && record.Value != nil && !slices.Contains(known, kind):
		return nil, nil // of a type that is not known here
	case kind == "" || err != nil || record.Key == nil:
		return nil, fmt.Errorf("no ce_type, ce_userversion or key")
	case record.Value == nil:
		return &user{version: version, gone: true}, nil
	}
	var data struct{ User *user }
	if err := json.Unmarshal(record.Value, &data); err != nil || data.User == nil {
		return nil, fmt.Errorf("no user in it (%v)", err)
	}
	data.User.version, data.User.gone = version, kind == "muster.UserDeleted"
	return data.User, nil
}

// apply takes what is newer. complete: of a topic with every version, so that one left out is worth a word.
func apply(users map[string]user, id string, next user, complete bool) {
	held := users[id]
	// what takes away counts at the version held, too: a user is erased without a new version
	if next.version < held.version || next.version == held.version && (held.gone || !next.gone && !next.Erased) {
		return
	}
	if complete && next.version > held.version+1 {
		log.Printf("gap: user %s goes from version %d to %d", id, held.version, next.version)
	}
	users[id] = next // of who is gone too: their version stays, so that nothing older brings them back
}

// read applies a topic from its beginning, until ctx is done or, with toEnd, where it ends now.
func read(ctx context.Context, client *kgo.Client, topic string, users map[string]user, toEnd, complete bool) {
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err := cmp.Or(err, ends.Error()); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
	unread := ends.Offsets()[topic]
	maps.DeleteFunc(unread, func(_ int32, end kadm.Offset) bool { return end.At == 0 })
	client.AddConsumeTopics(topic)
	defer client.PurgeTopicsFromConsuming(topic)
	for (len(unread) > 0 || !toEnd) && ctx.Err() == nil {
		patience, cancel := context.WithTimeout(ctx, 5*time.Second)
		fetches := client.PollRecords(patience, 100) // those in hand are finished before it stops
		cancel()
		if toEnd && fetches.Err0() != nil && client.Ping(ctx) == nil {
			return // a broker that answers and has no more: compaction or retention removed what stood last
		}
		for record := range fetches.RecordsAll() {
			if next, err := userOf(record); err != nil {
				log.Printf("passed over %s-%d@%d: %v", topic, record.Partition, record.Offset, err)
			} else if next != nil {
				apply(users, string(record.Key), *next, complete)
			}
			if record.Offset+1 >= unread[record.Partition].At {
				delete(unread, record.Partition)
			}
		}
	}
}

// text is as in PostgreSQL's COPY: \N is null; a tab, a line's end and a backslash are escaped with a backslash.
func text(value *string) string {
	if value == nil {
		return `\N`
	}
	return strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`).Replace(*value)
}

func env(name, otherwise string) string { return cmp.Or(os.Getenv(name), otherwise) }

func main() {
	log.SetFlags(0) // to stderr, without the time
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// no group: the table is in memory, so each start reads from the beginning, and no offset is committed
	servers := kgo.SeedBrokers(strings.Split(env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"), ",")...)
	client, err := kgo.NewClient(servers, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	users := map[string]user{}
	// the compacted topic first: it has everybody, however old; then each event, of which those known are skipped
	read(ctx, client, env("SNAPSHOT_TOPIC", "users.snapshot.v1"), users, true, false)
	read(ctx, client, env("EVENTS_TOPIC", "users.events.v1"), users, os.Getenv("UNTIL_END") == "1", true)
	for _, id := range slices.Sorted(maps.Keys(users)) {
		if u := users[id]; !u.gone {
			fmt.Printf("%s\t%d\t%s\t%s\t%s\n", id, u.version, text(u.Status), text(u.Email), text(u.DisplayName))
		}
	}
}
