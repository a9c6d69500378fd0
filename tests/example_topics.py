"""The fixture of the examples as two topics of a broker, each record on the partition that its key belongs to."""

import secrets
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.topics import settled
from tests.waiting import eventually

FIXTURE = Path(__file__).parent.parent / "examples" / "fixture"
PARTITIONS = 4

Line = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleTopics:
    bootstrap_servers: str
    events: str
    snapshot: str

    def write(self, lines: Sequence[Line], *, partition: int | None = None) -> list[str]:
        """Where each record is now, as the consumers name it: topic-partition@offset, in the order of `lines`."""
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "linger.ms": 5, "log_level": 0})
        places: dict[int, str] = {}
        names = {"events": self.events, "snapshot": self.snapshot}
        for number, line in enumerate(lines):

            def noted(error: object, message: Any, number: int = number) -> None:  # noqa: ANN401 - confluent's
                assert error is None, error
                places[number] = f"{message.topic()}-{message.partition()}@{message.offset()}"

            key, value = line["key"], line["value"]
            producer.produce(
                names[line["topic"]],
                partition=zlib.crc32((key or "").encode()) % PARTITIONS if partition is None else partition,
                key=key,
                value=None if value is None else value.encode(),
                headers=list(line["headers"].items()),
                on_delivery=noted,
            )
        assert producer.flush(30) == 0
        return [places[number] for number in range(len(lines))]

    def environment(self) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "EVENTS_TOPIC": self.events,
            "SNAPSHOT_TOPIC": self.snapshot,
        }


def fixture_lines() -> list[Line]:
    return [orjson.loads(line) for line in (FIXTURE / "records.jsonl").read_bytes().splitlines()]


@pytest.fixture
def example_topics(bootstrap_servers: str) -> Iterator[ExampleTopics]:
    """Two topics of this test's own, empty."""
    name = f"examples-{secrets.token_hex(6)}"
    topics = ExampleTopics(bootstrap_servers=bootstrap_servers, events=f"{name}.events", snapshot=f"{name}.snapshot")
    admin: Any = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    names = (topics.events, topics.snapshot)
    settled(admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in names]))

    def made() -> bool:
        found = admin.list_topics(timeout=30).topics
        return all(topic in found and len(found[topic].partitions) == PARTITIONS for topic in names)

    eventually(made, what="the topics are made")
    yield topics
    settled(admin.delete_topics(list(names)))
