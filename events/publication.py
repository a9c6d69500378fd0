"""What is published: how far each partition of both topics is, as saved and as the topics themselves tell."""

from dataclasses import dataclass
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import Counter

from events.envelope import place_in
from events.reader import head_position
from events.recording import Position
from events.topics import Span, record_at, spans
from runtime.database import Connection, Row
from runtime.logs import logger

REPUBLISHING = Counter("muster_relay_topic_lost_total", "Partitions found truncated or made anew", ["topic"])

SAVE = """
INSERT INTO log.publication AS p (topic, partition, position, next_offset, last_position, epoch)
SELECT * FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[], %s::bigint[], %s::int[])
ON CONFLICT (topic, partition) DO UPDATE
SET position = excluded.position, next_offset = excluded.next_offset, last_position = excluded.last_position,
    epoch = excluded.epoch, published_at = now()
"""

log = logger(__name__)


class TopicAhead(Exception):
    """The topic holds events that the log does not: a restore or a failover lost acknowledged events."""


@dataclass(slots=True, kw_only=True)
class Channel:
    """One partition of one topic. `complete`: every event up to here that belongs to it is in it.

    `epoch` counts how often it was found truncated or made anew.
    """

    complete: Position
    next_offset: int
    last_position: Position
    epoch: int


async def read_back(
    connection: Connection, reader: AIOKafkaConsumer, partitions: list[TopicPartition]
) -> dict[TopicPartition, Channel]:
    """Where each partition really stands. Raises TopicAhead when one holds what the log does not."""
    cursor = await connection.execute(
        "SELECT topic, partition, position, next_offset, last_position, epoch FROM log.publication"
    )
    saved = {TopicPartition(row["topic"], row["partition"]): row for row in await cursor.fetchall()}
    reader.assign(partitions)
    held = await spans(reader, partitions)
    channels: dict[TopicPartition, Channel] = {}
    ahead: list[str] = []
    for partition in partitions:
        span = held[partition]
        row = saved.get(partition)
        last = await _last_of_ours(reader, partition, span, row["next_offset"] if row is not None else span.start)
        if last is not None and not await _in_log(connection, *last):
            ahead.append(f"{partition.topic}-{partition.partition} ends with position {last[0]} (event {last[1]})")
        epoch = row["epoch"] if row is not None else 0
        found = last[0] if last is not None else Position(0)
        if row is not None and await _lost(reader, partition, span, row):
            REPUBLISHING.labels(partition.topic).inc()
            log.error(
                "topic was truncated or made anew: republishing from the log",
                topic=partition.topic,
                partition=partition.partition,
                expected_offset=row["next_offset"],
                found_offset=span.end,
                from_position=found + 1,
            )
            row, epoch = None, epoch + 1
        channels[partition] = Channel(
            complete=Position(max(found, row["position"] if row else 0)),
            next_offset=span.end,
            last_position=Position(found or (row["last_position"] if row else 0)),
            epoch=epoch,
        )
    if ahead:
        raise TopicAhead(
            f"the log ends at position {await head_position(connection)}, but holds not what the topics do: "
            + "; ".join(ahead)
            + ". Acknowledged events were lost from the log: restore them, or delete both topics to have them"
            " published anew from the log as it is"
        )
    return channels


async def _last_of_ours(
    reader: AIOKafkaConsumer, partition: TopicPartition, span: Span, known: int
) -> tuple[Position, UUID] | None:
    """Position and event id of the last record of ours; what strangers put behind it is passed over."""
    for offset in range(span.end - 1, max(span.start, min(known - 1, span.end - 1)) - 1, -1):
        record = await record_at(reader, partition, offset)
        if record is not None and (place := place_in(record.headers)) is not None:
            return place
    return None


async def _lost(reader: AIOKafkaConsumer, partition: TopicPartition, span: Span, row: Row) -> bool:
    """Whether the partition is another than the one that was written: shorter, or with another record there."""
    if span.end < row["next_offset"]:
        return True
    known = row["next_offset"] - 1
    # what retention or compaction has removed cannot be compared; the end offset spoke for it already
    if known < span.start:
        return False
    record = await record_at(reader, partition, known)
    place = place_in(record.headers) if record is not None else None
    return place is not None and place[0] != row["last_position"]


async def save(connection: Connection, channels: dict[TopicPartition, Channel]) -> None:
    await connection.execute(
        SAVE,
        (
            [partition.topic for partition in channels],
            [partition.partition for partition in channels],
            [channel.complete for channel in channels.values()],
            [channel.next_offset for channel in channels.values()],
            [channel.last_position for channel in channels.values()],
            [channel.epoch for channel in channels.values()],
        ),
        prepare=True,
    )


async def _in_log(connection: Connection, position: Position, event_id: UUID) -> bool:
    cursor = await connection.execute("SELECT event_id FROM log.events WHERE position = %s", (position,))
    row = await cursor.fetchone()
    return row is not None and row["event_id"] == event_id
