"""The topics on a broker, read with aiokafka outside any consumer group."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from muster_subscriber.decoding import Record
from muster_subscriber.source import Away, OutOfRange, Span, Topic

POLL: Final = 0.25
# of a poll while a broker that answers empty fetches at once is asked again only after a rest
SHORT_POLL: Final = 0.003
# seconds after which a partition that gives nothing is asked whether it still holds what is read
LOOK_AFTER: Final = 2.0
LONGEST_SILENCE: Final = 30.0
STOP_WITHIN: Final = 5.0
ANSWER_WITHIN_MS: Final = 10_000


@contextmanager
def _away() -> Generator[None]:
    # aiokafka on uvloop raises RuntimeError for a connection that the broker has closed (its issue 1038)
    try:
        yield
    except OffsetOutOfRangeError as error:
        ranges = cast("Mapping[TopicPartition, int]", error.args[0])
        raise OutOfRange(frozenset(partition.partition for partition in ranges)) from None
    except (KafkaError, OSError, TimeoutError, RuntimeError) as error:
        raise Away(f"{type(error).__name__}: {error}") from error


class Broker:
    """`connection` is aiokafka's: bootstrap_servers, security_protocol, ssl_context, sasl_mechanism and the like.

    `rest`: seconds between fetches when there is nothing new, for brokers that answer an empty fetch at once.
    """

    def __init__(self, *, events_topic: str, snapshot_topic: str, rest: float, connection: Mapping[str, Any]) -> None:
        self._names = {Topic.EVENTS: events_topic, Topic.SNAPSHOT: snapshot_topic}
        self._rest = rest
        self._connection: dict[str, Any] = {"request_timeout_ms": ANSWER_WITHIN_MS, **connection}
        self._opened: AIOKafkaConsumer | None = None
        self._waiting: dict[TopicPartition, int] = {}

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        self._opened = AIOKafkaConsumer(
            **self._connection,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_poll_records=None,
            fetch_max_wait_ms=int(POLL * 1000),
        )
        try:
            with _away():
                await self._opened.start()
            yield
        finally:
            consumer, self._opened = self._opened, None
            with _passing_over_trouble():
                async with asyncio.timeout(STOP_WITHIN):
                    await consumer.stop()

    async def partitions(self) -> Sequence[int]:
        with _away():
            client = AIOKafkaAdminClient(**self._connection)
            try:
                await client.start()
                names = list(self._names.values())
                # asking about a topic by name would have some brokers make it
                if missing := set(names) - set(await client.list_topics()):
                    raise Away(f"there is no topic {', '.join(sorted(missing))}")
                found = {one["topic"]: len(one["partitions"]) for one in await client.describe_topics(names)}
            finally:
                await client.close()
        if len(set(found.values())) != 1:
            raise Away(f"the topics have different numbers of partitions: {found}")
        return range(found[names[0]])

    async def spans(self, topic: Topic, partitions: Sequence[int]) -> Mapping[int, Span]:
        wanted = [TopicPartition(self._names[topic], number) for number in partitions]
        with _away():
            starts = cast("dict[TopicPartition, int]", await self._consumer.beginning_offsets(wanted))
            ends = cast("dict[TopicPartition, int]", await self._consumer.end_offsets(wanted))
        return {one.partition: Span(start=starts[one], end=ends[one]) for one in wanted}

    async def read(self, topic: Topic, partition: int, span: Span, *, limit: int) -> AsyncIterator[Sequence[Record]]:
        wanted = TopicPartition(self._names[topic], partition)
        consumer = self._consumer
        if span.start >= span.end:
            return
        consumer.assign([wanted])
        consumer.seek(wanted, span.start)
        heard = looked = time.monotonic()
        while True:
            with _away():
                if await consumer.position(wanted) >= span.end:
                    # assigned, it would go on fetching, and whatever is asked next would wait behind that
                    consumer.unsubscribe()
                    return
                polled = (await _getmany(consumer, wanted, seconds=POLL, limit=limit)).get(wanted, [])
            now = time.monotonic()
            if polled:
                heard = looked = now
            elif now - heard > LONGEST_SILENCE:
                raise Away(f"{wanted.topic}-{partition} gives nothing before its end at {span.end}")
            elif now - looked > LOOK_AFTER:
                if (await self.spans(topic, [partition]))[partition].end < span.end:
                    raise OutOfRange(frozenset({partition}))
                looked = now
            if records := [record for record in polled if record.offset < span.end]:
                yield records

    async def follow(self, offsets: Mapping[int, int]) -> None:
        name = self._names[Topic.EVENTS]
        self._waiting = {}
        self._consumer.assign([TopicPartition(name, partition) for partition in offsets])
        for partition, offset in offsets.items():
            self._consumer.seek(TopicPartition(name, partition), offset)

    async def poll(self, *, limit: int) -> Mapping[int, Sequence[Record]]:
        consumer = self._consumer
        seconds = SHORT_POLL if self._rest else POLL
        with _away():
            polled = await _getmany(consumer, seconds=seconds, limit=limit)
        if self._rest and not polled:
            assigned = consumer.assignment()
            consumer.pause(*assigned)
            await asyncio.sleep(self._rest)
            consumer.resume(*assigned)
        return {partition.partition: records for partition, records in polled.items()}

    async def look(self) -> Mapping[int, Span]:
        """Raises Away of a consumer that is stuck: between two looks it read nothing of what was there to read."""
        assigned = {one.partition: one for one in self._consumer.assignment()}
        spans = await self.spans(Topic.EVENTS, list(assigned))
        with _away():
            positions = {one: await self._consumer.position(one) for one in assigned.values()}
        behind = {one: at for one, at in positions.items() if at < spans[one.partition].end}
        if stuck := [one for one, at in behind.items() if self._waiting.get(one) == at]:
            raise Away(f"stuck at {stuck}")
        self._waiting = behind
        return spans

    @property
    def _consumer(self) -> AIOKafkaConsumer:
        if self._opened is None:
            raise Away("not opened")
        return self._opened


async def _getmany(
    consumer: AIOKafkaConsumer, *partitions: TopicPartition, seconds: float, limit: int
) -> Mapping[TopicPartition, Sequence[Record]]:
    return cast(
        "Mapping[TopicPartition, Sequence[Record]]",
        await consumer.getmany(*partitions, timeout_ms=int(seconds * 1000), max_records=limit),
    )


@contextmanager
def _passing_over_trouble() -> Generator[None]:
    try:
        yield
    except (KafkaError, OSError, TimeoutError, RuntimeError):
        # it is left behind, whatever state it is in
        return
