"""The consumer of the events topic, as a member of the projectors' group."""

import asyncio
import contextlib
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError

from events.broker_connection import connection_arguments
from events.topics import Record, poll
from runtime.pacing import wait_at_most
from runtime.settings import Settings

# seconds that a poll waits for records; the short one for a broker that answers empty fetches at once
LONG_POLL, SHORT_POLL = 0.25, 0.003
# a new assignment has no offsets until it is placed
UNPLACED: Final = (NoOffsetForPartitionError, OffsetOutOfRangeError)


def events_consumer(settings: Settings, listener: ConsumerRebalanceListener) -> AIOKafkaConsumer:
    """A consumer that commits nothing to the broker and seeks for itself; it is started by the caller."""
    consumer = AIOKafkaConsumer(
        **connection_arguments(settings),
        group_id=settings.projector_group,
        group_instance_id=settings.projector_instance,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        # the shortest that brokers allow by default: how long a killed member's partitions stand still
        session_timeout_ms=6_000,
        heartbeat_interval_ms=1_000,
        rebalance_timeout_ms=10_000,
        # joining is answered when the group has settled: it must outlast the rebalance
        request_timeout_ms=25_000,
        max_poll_interval_ms=120_000,
        max_partition_fetch_bytes=4 * 1024 * 1024,
        fetch_max_wait_ms=250,
        metadata_max_age_ms=10_000,
    )
    consumer.subscribe([settings.events_topic], listener=listener)
    return consumer


async def poll_widely(consumer: AIOKafkaConsumer, *, seconds: float, limit: int) -> dict[TopicPartition, list[Record]]:
    """The records that have come, up to `limit` of some partitions and as many of the others; empty after `seconds`.

    The client gives what it has of one partition first, and several are applied at once.
    """
    polled = await poll(consumer, seconds=seconds, limit=limit)
    others = consumer.assignment() - polled.keys()
    if others and sum(map(len, polled.values())) == limit:
        polled |= await poll(consumer, *others, seconds=0, limit=limit)
    return polled


async def stay(consumer: AIOKafkaConsumer, seconds: float) -> None:
    """Poll without wanting records: a member that does not poll is put out of the group."""
    with contextlib.suppress(*UNPLACED):
        await poll(consumer, seconds=seconds, limit=1)


async def pause(consumer: AIOKafkaConsumer, stopping: asyncio.Event, seconds: float) -> None:
    """Keep the client from fetching for a moment: it would go round without end."""
    resting = consumer.assignment()
    consumer.pause(*resting)
    await wait_at_most(stopping, seconds)
    consumer.resume(*(resting & consumer.assignment()))
