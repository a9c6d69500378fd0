"""Keep a table of users from Muster's two topics, and print it at the end. ../README.md says what happens when."""

import json
import os
import signal
import sys
import threading
from typing import Any, NamedTuple, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

KNOWN = {"muster.UserCreated", "muster.UserUpdated", "muster.UserDeleted"}


class Event(NamedTuple):
    user_id: str
    version: int
    user: dict[str, Any] | None  # None: the user is gone


def event_of(message: Message) -> Event | None:
    """None: of a type that is not known here. Raises LookupError, TypeError or ValueError for what is no event."""
    headers = dict(cast("list[tuple[str, bytes]]", message.headers() or []))
    key, value = message.key(), message.value()
    kind = headers["ce_type"].decode().rpartition(".")[0]  # without the schema's version: a new one adds fields
    if value is not None and kind not in KNOWN:
        return None
    if key is None:
        raise ValueError("no key")
    event = Event(key.decode(), int(headers["ce_userversion"]), None)
    if value is None:
        return event
    user = json.loads(value)["user"]
    if not isinstance(user, dict):
        raise TypeError("no user")
    return event if kind == "muster.UserDeleted" else event._replace(user=cast("dict[str, Any]", user))


def apply(users: dict[str, Event], event: Event, *, complete: bool) -> None:
    """Take what is newer. `complete`: of a topic with every version, so that one left out is worth a word."""
    held = users.get(event.user_id, Event(event.user_id, 0, None))
    takes_away = event.user is None or event.user.get("erased") is True
    # what takes away counts at the version held, too: a user is erased without a new version
    if event.version < held.version or (event.version == held.version and not (takes_away and held.user)):
        return
    if complete and event.version > held.version + 1:
        warn(f"gap: user {event.user_id} goes from version {held.version} to {event.version}")
    users[event.user_id] = event  # of who is gone too: their version stays, so that nothing older brings them back


def read(
    consumer: Consumer, topic: str, users: dict[str, Event], stop: threading.Event, *, to_end: bool, complete: bool
) -> None:
    """Apply a topic from its beginning, until a signal says stop or, with `to_end`, each partition's end was seen."""
    partitions = set(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
    if not partitions:
        raise SystemExit(f"there is no topic {topic}")
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    while (partitions or not to_end) and not stop.is_set():
        message = consumer.poll(0.5)
        if message is None:
            continue
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                partitions.discard(cast("int", message.partition()))
            elif error.fatal():
                raise KafkaException(error)
            continue  # the library tries again
        try:
            if (event := event_of(message)) is not None:
                apply(users, event, complete=complete)
        except (LookupError, TypeError, ValueError) as wrong:
            warn(f"passed over {topic}-{message.partition()}@{message.offset()}: {wrong!r}")


def row(event: Event, user: dict[str, Any]) -> str:
    r"""As in PostgreSQL's COPY: \N is null; a tab, a line's end and a backslash are escaped with a backslash."""
    escapes = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
    texts = (user.get(name) for name in ("status", "email", "display_name"))
    columns = ("\\N" if text is None else text.translate(escapes) for text in texts)
    return "\t".join((event.user_id, str(event.version), *columns)) + "\n"


def warn(said: str) -> None:
    print(said, file=sys.stderr, flush=True)


def main() -> None:
    stop, users = threading.Event(), dict[str, Event]()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
    # no group: the table is in memory, so each start reads from the beginning, and no offset is committed
    settings = {"group.id": "none", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": servers, "enable.partition.eof": True, **settings})
    try:
        # the compacted topic first: it has everybody, however old; then each event, of which those known are skipped
        snapshot = os.environ.get("SNAPSHOT_TOPIC", "users.snapshot.v1")
        read(consumer, snapshot, users, stop, to_end=True, complete=False)
        events, until_end = os.environ.get("EVENTS_TOPIC", "users.events.v1"), os.environ.get("UNTIL_END") == "1"
        read(consumer, events, users, stop, to_end=until_end, complete=True)
    finally:
        consumer.close()
    rows = (row(event, event.user) for event in users.values() if event.user is not None)
    sys.stdout.buffer.write("".join(sorted(rows)).encode())


if __name__ == "__main__":
    main()
