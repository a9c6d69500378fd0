from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, TopicAuthorizationFailedError, for_code

from events.broker_connection import connection_arguments
from events.closed_connections import tell_closed_connections
from events.partitioning import WrongPartitions
from runtime.broker_settings import BrokerSettings

NO_ERROR: Final = 0
COMPACTED: Final[Mapping[str, str]] = {"cleanup.policy": "compact", "unclean.leader.election.enable": "false"}
# Only what is rolled is removed: without a bound of its own, a segment with few records would hold on to them as long
# again.
ROLLED_WITHIN: Final = timedelta(days=1)
READ_AT_ONCE: Final = 500
# polls of half a second
LONGEST_SILENCE: Final = 40

Record = ConsumerRecord[bytes, bytes]

# whoever uses a topic comes by here
tell_closed_connections()


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The offsets that a partition holds: from `start` to before `end`."""

    start: int
    end: int


@asynccontextmanager
async def admin_client(settings: BrokerSettings) -> AsyncGenerator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(**connection_arguments(settings), request_timeout_ms=10_000)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


async def ensure_topics(settings: BrokerSettings) -> None:
    """Create the topics that are missing; raises WrongPartitions for one that has another number of them."""
    async with admin_client(settings) as admin:
        wanted = {
            settings.events_topic: _history_config(settings),
            settings.snapshot_topic: {
                **COMPACTED,
                "max.compaction.lag.ms": str(settings.snapshot_compaction_hours * 3_600_000),
            },
        }
        # asking about a topic by name would have some brokers make it, with a number of partitions of their own
        existing = set(await admin.list_topics())
        for name in [name for name in wanted if name not in existing]:
            await _create(admin, name, wanted[name], settings, partitions=settings.topic_partitions)
        for found in await admin.describe_topics(list(wanted)):
            if found["error_code"] != NO_ERROR:
                raise for_code(found["error_code"])(found["topic"])
            if len(found["partitions"]) != settings.topic_partitions:
                raise WrongPartitions(
                    f"topic {found['topic']} has {len(found['partitions'])} partitions, TOPIC_PARTITIONS says"
                    f" {settings.topic_partitions}: set it to what the topic has"
                )


async def ensure_topic(settings: BrokerSettings, name: str) -> None:
    """Create a topic for events like the live one, unless there is one of that name, whatever it is like."""
    async with admin_client(settings) as admin:
        if name not in await admin.list_topics():
            await _create(admin, name, _history_config(settings), settings, partitions=settings.topic_partitions)


async def ensure_compacted(settings: BrokerSettings, name: str) -> None:
    """Create a topic of one partition that keeps the newest record of each key, unless it is there."""
    async with admin_client(settings) as admin:
        if name not in await admin.list_topics():
            await _create(admin, name, COMPACTED, settings, partitions=1)


async def partition_numbers(settings: BrokerSettings, topic: str) -> list[int]:
    """The numbers of a topic's partitions; none of a topic that is not there. Raises KafkaError."""
    async with admin_client(settings) as admin:
        # as above: never by the name of one that may not be there
        if topic not in await admin.list_topics():
            return []
        (found,) = await admin.describe_topics([topic])
        return sorted(partition["partition"] for partition in found["partitions"])


def _history_config(settings: BrokerSettings) -> Mapping[str, str]:
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(settings.topic_retention_hours * 3_600_000),
        "segment.ms": str(ROLLED_WITHIN // timedelta(milliseconds=1)),
        "unclean.leader.election.enable": "false",
    }


async def _create(
    admin: AIOKafkaAdminClient, name: str, config: Mapping[str, str], settings: BrokerSettings, *, partitions: int
) -> None:
    topic = NewTopic(name, partitions, settings.topic_replication, topic_configs=dict(config))
    # the response's type depends on the protocol version: it has (topic, error code, message)
    response: Any = await admin.create_topics([topic])
    for _, code, message in cast("list[tuple[str, int, str | None]]", response.topic_errors):
        error: type[KafkaError] = for_code(code)
        if code != NO_ERROR and error is not TopicAlreadyExistsError:
            raise error(name if error is TopicAuthorizationFailedError else message or name)


def topic_reader(settings: BrokerSettings) -> AIOKafkaConsumer:
    """A consumer outside any group, for looking at partitions one assigns oneself."""
    return AIOKafkaConsumer(
        **connection_arguments(settings),
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        request_timeout_ms=10_000,
        max_poll_records=None,
    )


async def spans(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> dict[TopicPartition, Span]:
    starts = cast("dict[TopicPartition, int]", await consumer.beginning_offsets(partitions))
    ends = cast("dict[TopicPartition, int]", await consumer.end_offsets(partitions))
    return {partition: Span(start=starts[partition], end=ends[partition]) for partition in partitions}


async def poll(
    consumer: AIOKafkaConsumer, *partitions: TopicPartition, seconds: float, limit: int
) -> dict[TopicPartition, list[Record]]:
    """The records that have come, of all assigned partitions unless some are named; empty after `seconds`."""
    return cast(
        "dict[TopicPartition, list[Record]]",
        await consumer.getmany(*partitions, timeout_ms=int(seconds * 1000), max_records=limit),
    )


async def record_at(consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> Record | None:
    """The record at an offset that the partition holds, or None if it is not there (compacted away)."""
    consumer.assign([partition])
    consumer.seek(partition, offset)
    # the broker answers a fetch below its end at once: a few polls only bridge the connection's start
    for _ in range(20):
        records = (await poll(consumer, partition, seconds=0.5, limit=1)).get(partition)
        if records:
            return records[0] if records[0].offset == offset else None
        if await consumer.position(partition) > offset:
            return None
    raise TimeoutError(f"{partition.topic}-{partition.partition} did not give its record at {offset}")


async def records_in(
    consumer: AIOKafkaConsumer, partition: TopicPartition, span: Span
) -> AsyncIterator[Sequence[Record]]:
    """What the partition holds of a span, some hundred records at a time, in order. Raises TimeoutError."""
    consumer.assign([partition])
    consumer.seek(partition, span.start)
    waited = 0
    while await consumer.position(partition) < span.end:
        polled = (await poll(consumer, partition, seconds=0.5, limit=READ_AT_ONCE)).get(partition, [])
        waited = 0 if polled else waited + 1
        if waited > LONGEST_SILENCE:
            raise TimeoutError(f"{partition.topic}-{partition.partition} gives nothing before its end at {span.end}")
        if records := [record for record in polled if record.offset < span.end]:
            yield records
