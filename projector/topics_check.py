"""Both topics compared with the log, partition by partition."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from events.broker_connection import trouble
from events.envelope import Origin
from events.keyring import Keyring
from events.topics import Span, partition_numbers, spans, topic_reader
from projector.findings import Finding
from projector.standing import CannotVerify, Standing
from projector.topic_snapshot import Snapshot
from projector.topic_tail import Tail
from projector.verifying import Advanced, Report
from runtime.database import Connection
from runtime.settings import Settings

STOP_WITHIN: Final = 5.0


@dataclass(slots=True, kw_only=True)
class TopicsTally:
    """Records compared so far."""

    tail: int = 0
    snapshot: int = 0


class TopicsCheck:
    """Made before the moment that is compared: what the topics have by now, the log must have then."""

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer, known: Mapping[TopicPartition, Span]) -> None:
        self._settings = settings
        self._consumer = consumer
        self._known = known
        self.tally = TopicsTally()

    @property
    def records(self) -> int:
        """About how many there are to compare, without the tails."""
        topic = self._settings.snapshot_topic
        return sum(span.end - span.start for partition, span in self._known.items() if partition.topic == topic)

    async def run(
        self,
        connection: Connection,
        keyring: Keyring,
        standing: Standing,
        report: Report,
        *,
        tail: int,
        advanced: Advanced,
    ) -> None:
        """Compare the last `tail` records of each partition of the history topic, and the snapshot topic as a whole.

        Raises CannotVerify, WrongKey and psycopg's errors.
        """
        async with _broker_trouble(self._settings):
            held = await spans(self._consumer, list(self._known))
            for partition, span in held.items():
                if (finding := _cut_short(partition, span, standing)) is not None:
                    report(finding)
                async for finding in self._compare(connection, keyring, standing, partition, span, tail):
                    report(finding)
                advanced(min(self.tally.snapshot, self.records))

    async def _compare(
        self,
        connection: Connection,
        keyring: Keyring,
        standing: Standing,
        partition: TopicPartition,
        span: Span,
        tail: int,
    ) -> AsyncIterator[Finding]:
        known_end = self._known[partition].end
        origin = Origin.of(self._settings)
        if partition.topic == self._settings.events_topic:
            last = Tail(connection, keyring, standing, partition, origin)
            wanted = Span(start=max(span.start, known_end - tail), end=known_end)
            async for finding in last.findings(self._consumer, wanted):
                yield finding
            self.tally.tail += last.records
        else:
            snapshot = Snapshot(connection, keyring, standing, partition, origin)
            async for finding in snapshot.findings(self._consumer, span, known_end):
                yield finding
            self.tally.snapshot += snapshot.records


@asynccontextmanager
async def topics_check(settings: Settings) -> AsyncGenerator[TopicsCheck]:
    """Raises CannotVerify when the broker or a topic is not there."""
    consumer = topic_reader(settings)
    try:
        async with _broker_trouble(settings):
            await consumer.start()
            partitions = [
                partition
                for topic in (settings.events_topic, settings.snapshot_topic)
                for partition in await _partitions(settings, topic)
            ]
            known = await spans(consumer, partitions)
        yield TopicsCheck(settings, consumer, known)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN):
                await consumer.stop()


async def _partitions(settings: Settings, topic: str) -> list[TopicPartition]:
    numbers = await partition_numbers(settings, topic)
    if not numbers:
        raise CannotVerify(f"there is no topic {topic}: start the relay, or compare the rest with --no-topics")
    if numbers != list(range(settings.topic_partitions)):
        raise CannotVerify(
            f"topic {topic} has {len(numbers)} partitions, TOPIC_PARTITIONS says {settings.topic_partitions}:"
            " set it to what the topic has"
        )
    return [TopicPartition(topic, number) for number in numbers]


def _cut_short(partition: TopicPartition, span: Span, standing: Standing) -> Finding | None:
    written = standing.written.get((partition.topic, partition.partition))
    if written is None or span.end >= written.next_offset:
        return None
    return Finding(
        place=f"{partition.topic}-{partition.partition}",
        problem=f"it ends at offset {span.end}, and the relay had written up to {written.next_offset}",
    )


@asynccontextmanager
async def _broker_trouble(settings: Settings) -> AsyncGenerator[None]:
    try:
        yield
    except (KafkaError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise CannotVerify(f"{await trouble(settings, error)}; --no-topics compares the rest") from None
