"""The topics as a consumer that is not aiokafka sees them."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from runtime.settings import Settings
from tests.waiting import eventually


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRecord:
    partition: int
    offset: int
    key: str
    headers: dict[str, str]
    value: dict[str, Any] | None

    @property
    def position(self) -> int:
        return int(self.headers["ce_sequence"])


def records_of(settings: Settings, topic: str) -> list[TopicRecord]:
    """All records that a topic holds now, partition by partition, each in offset order."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": "none",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    try:
        partitions = range(settings.topic_partitions)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        open_partitions = set(partitions)
        found: list[TopicRecord] = []
        while open_partitions:
            message = consumer.poll(30)
            assert message is not None, f"{topic} did not come to its end"
            error = message.error()
            if error is None:
                found.append(_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                open_partitions.discard(cast("int", message.partition()))
            else:
                raise AssertionError(error.str())
        return sorted(found, key=lambda record: (record.partition, record.offset))
    finally:
        consumer.close()


def _record(message: Message) -> TopicRecord:
    value, key = message.value(), message.key()
    headers = cast("list[tuple[str, bytes]]", message.headers() or [])
    assert isinstance(key, bytes)
    return TopicRecord(
        partition=cast("int", message.partition()),
        offset=cast("int", message.offset()),
        key=key.decode(),
        headers={name: content.decode() for name, content in headers},
        value=orjson.loads(value) if value is not None else None,
    )


def settled(answers: Mapping[str, Any]) -> None:
    for answer in answers.values():
        answer.result(30)


def make_anew(settings: Settings) -> None:
    admin: Any = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    names = [settings.events_topic, settings.snapshot_topic]
    settled(admin.delete_topics(names))

    def made() -> bool:
        with contextlib.suppress(KafkaException):  # a deletion may still be under way
            settled(admin.create_topics([NewTopic(name, settings.topic_partitions, 1) for name in names]))
        found = admin.list_topics(timeout=30).topics
        for name in names:
            if name in found and len(found[name].partitions) != settings.topic_partitions:
                # a broker that makes topics by itself did so for a client that had not heard of the deletion
                settled(admin.delete_topics([name]))
        return all(name in found and len(found[name].partitions) == settings.topic_partitions for name in names)

    eventually(made, what="the topics are made anew")
