"""The projector: carries the events topic into the read model, each effect once."""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from prometheus_client import Counter, Gauge

from events.envelope import Opened
from events.keyring import WrongKey
from events.recording import Position
from events.topics import Record, WrongPartitions, ensure_topics, poll, spans
from projector.catch_up import APPLIED, BATCH, land, read_log
from projector.model_store import (
    ModelStore,
    NewerShape,
    PartitionMoved,
    Progress,
    Step,
    TooManyParked,
    VersionsMissing,
)
from projector.opening import opened, place_of
from projector.parking import Park, tell
from projector.rows import Row
from runtime.failpoints import failpoint
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.logs import logger
from runtime.pacing import LONGEST, Backoff, wait_at_most
from runtime.settings import Settings

SKIPPED = Counter("muster_projector_skipped_total", "Records that were applied before")
POSITION = Gauge("muster_projector_position", "Position applied, by partition", ["partition"])

FAR_BEHIND: Final = 20_000
NEVER: Final = -1
# seconds that a poll waits for records
LONG_POLL, SHORT_POLL = 0.25, 0.003
MOST_IDS_LOGGED: Final = 20
STOP_WITHIN: Final = 6.0

State = Literal["starting", "live", "catching-up", "halted", "retrying", "stopped"]

log = logger(__name__)


class TopicAhead(Exception):
    """The topic holds an event that the log does not: a restore or a failover lost acknowledged events."""


class Projector(ConsumerRebalanceListener):
    """One member of the consumer group. Runs until `stop`.

    The rows and the consumed offsets commit together, so a crash at any point neither loses an effect nor repeats
    one. It seeks to its own stored offsets, never to the broker's. Whenever the topic cannot be trusted to be whole
    (a missing version, a lost offset, a long way behind) it reads the log instead.
    """

    def __init__(self, settings: Settings, store: ModelStore) -> None:
        self._settings = settings
        self._store = store
        self._stopping = asyncio.Event()
        # where each partition stands: its next offset, and the position that is applied
        self._placed: dict[TopicPartition, Progress] = {}
        self._misplaced = True
        self._head = Position(0)
        self.state: State = "starting"
        self.problem: str | None = None

    def stop(self) -> None:
        """Ask the projector to finish its batch, leave the group and return."""
        self._stopping.set()

    async def run(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            backoff.attempt()
            try:
                await self._consume()
                continue
            except (TopicAhead, WrongPartitions, WrongKey, NewerShape, TooManyParked) as error:
                # no machine may settle these: say it, keep looking whether an operator has
                self._set("halted", str(error))
                log.error("projector halted", reason=str(error))
            except (Unavailable, OutcomeUnknown, KafkaError, OSError, TimeoutError, PartitionMoved) as error:
                # the log tells the rest: an address or a name is nothing for whoever asks about readiness
                self._set("retrying", type(error).__name__)
                log.warning("projector interrupted", reason=f"{type(error).__name__}: {error}")
            except Exception as error:  # a fault of this code: nothing is passed over, it is tried again, and seen
                self._set("retrying", type(error).__name__)
                log.exception("projector failed")
            await wait_at_most(self._stopping, LONGEST if self.state == "halted" else backoff.pause())
        self._set("stopped")

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to hand over: every batch is committed before the next poll."""
        for partition in revoked:
            self._placed.pop(partition, None)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - aiokafka's signature
        # errors in here would be swallowed: the consuming loop places itself before it applies anything
        self._misplaced = True

    async def _consume(self) -> None:
        await self._store.check_partitions()
        await ensure_topics(self._settings)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka_bootstrap_servers,
            group_id=self._settings.projector_group,
            group_instance_id=self._settings.projector_instance,
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
        consumer.subscribe([self._settings.events_topic], listener=self)
        self._misplaced = True
        try:
            await consumer.start()
            while not self._stopping.is_set():
                if self._misplaced:
                    await self._place(consumer)
                    continue
                rest = self._settings.fetch_pause
                try:
                    polled = await poll(consumer, seconds=SHORT_POLL if rest else LONG_POLL, limit=BATCH)
                except (NoOffsetForPartitionError, OffsetOutOfRangeError):
                    # a new assignment has no offsets until it is placed; leaving the group over it would upset it again
                    self._misplaced = True
                    continue
                if rest and not polled:
                    await self._rest(consumer, rest)
                if self._misplaced or not polled:
                    continue
                try:
                    await self._apply(consumer, polled)
                except PartitionMoved:
                    self._misplaced = True
                except VersionsMissing as error:
                    log.error("the topic lacks events that the log has", reason=str(error))
                    await self._catch_up(consumer, list(polled), why="missing_version")
        finally:
            # leaving the group must not take longer than the group would take to notice
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN):
                    await consumer.stop()

    async def _rest(self, consumer: AIOKafkaConsumer, seconds: float) -> None:
        """Keep the client from fetching for a moment: it would go round without end."""
        resting = consumer.assignment()
        consumer.pause(*resting)
        await wait_at_most(self._stopping, seconds)
        consumer.resume(*(resting & consumer.assignment()))

    @staticmethod
    async def _stay(consumer: AIOKafkaConsumer, seconds: float) -> None:
        """Poll without wanting records: a member that does not poll is put out of the group."""
        with contextlib.suppress(NoOffsetForPartitionError, OffsetOutOfRangeError):
            await poll(consumer, seconds=seconds, limit=1)

    async def _place(self, consumer: AIOKafkaConsumer) -> None:
        """Seek every assigned partition to the offset that is stored with the rows."""
        assigned = consumer.assignment()
        self._misplaced = False
        if not assigned:
            await self._stay(consumer, 0.1)
            self._misplaced = not consumer.assignment() or self._misplaced
            return
        partitions = sorted(assigned)
        await self._store.begin(partition.partition for partition in partitions)
        progress = await self._store.progress(partition.partition for partition in partitions)
        held = await spans(consumer, partitions)
        head = await self._store.head()
        lost: list[TopicPartition] = []
        for partition in partitions:
            stands = progress[partition.partition]
            span = held[partition]
            if (
                stands.next_offset == NEVER
                or not span.start <= stands.next_offset <= span.end
                or (head - stands.position > FAR_BEHIND and stands.next_offset < span.end)
            ):
                lost.append(partition)
            else:
                self._seek(consumer, partition, stands, span.start)
        if lost:
            await self._catch_up(consumer, lost, why="placed")
        self._set("live")
        log.info("projector placed", partitions=[partition.partition for partition in partitions])

    def _seek(self, consumer: AIOKafkaConsumer, partition: TopicPartition, stands: Progress, start: int) -> None:
        # one record back: it must be one that is applied, or the topic is not the one that the offset is of
        consumer.seek(partition, max(start, stands.next_offset - 1))
        self._placed[partition] = stands

    async def _apply(self, consumer: AIOKafkaConsumer, polled: Mapping[TopicPartition, Sequence[Record]]) -> None:
        steps: list[Step] = []
        fresh: list[Opened] = []
        rows: list[Row] = []
        parks: list[Park] = []
        for partition, records in polled.items():
            stands = self._placed.get(partition)
            if stands is None:
                continue
            # getmany may still give records from before a seek
            current = [record for record in records if record.offset >= stands.next_offset]
            SKIPPED.inc(len(records) - len(current))
            before = records[-len(current) - 1] if len(current) < len(records) else None
            place = place_of(before) if before is not None else None
            if place is not None and place[0] > stands.position:
                await self._catch_up(consumer, [partition], why="topic_made_anew")
                continue
            if not current:
                continue
            if current[0].offset != stands.next_offset:
                # retention overtook us between two polls
                await self._catch_up(consumer, [partition], why="lost_offset")
                continue
            batch = opened(current)
            if batch.newest is not None:
                await self._check_not_ahead(*batch.newest)
            fresh.extend(batch.events)
            rows.extend(batch.rows)
            parks.extend(batch.parks)
            steps.append(
                Step(
                    partition=partition.partition,
                    from_offset=stands.next_offset,
                    next_offset=current[-1].offset + 1,
                    position=batch.newest[0] if batch.newest is not None else stands.position,
                )
            )
        if not steps:
            return
        failpoint("projector.before_apply")
        parked = await self._store.project(rows, steps, source="topic", parks=parks, strict=True)
        failpoint("projector.applied")
        tell(parked)
        for step in steps:
            partition = TopicPartition(self._settings.events_topic, step.partition)
            self._placed[partition] = replace(
                self._placed[partition], next_offset=step.next_offset, position=step.position
            )
            POSITION.labels(step.partition).set(step.position)
        APPLIED.labels("topic").inc(len(fresh))
        self._set("live")
        log.info(
            "applied",
            events=len(fresh),
            newest_position=max((found.position for found in fresh), default=None),
            # under load a line would be longer than the events it tells of
            correlation_ids=[found.correlation_id for found in fresh[:MOST_IDS_LOGGED]],
        )

    async def _check_not_ahead(self, position: Position, event_id: UUID) -> None:
        """An event is in the log before it is in the topic; raises TopicAhead when it is not."""
        if position <= self._head:
            return
        self._head = await self._store.head()
        if not await self._store.holds(position, event_id):
            raise TopicAhead(
                f"the topic holds position {position} (event {event_id}), which the log, ending at"
                f" {self._head}, does not: acknowledged events were lost from the log. Restore them, or delete both"
                " topics to have them published anew from the log as it is, and rebuild the read model"
            )

    async def _catch_up(self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], *, why: str) -> None:
        """Read the log for these partitions up to its head, then go on in the topic after what that covers."""
        self._set("catching-up")
        assigned = consumer.assignment()
        consumer.pause(*assigned)

        async def go_on() -> bool:
            await self._stay(consumer, 0)
            return not self._misplaced and not self._stopping.is_set()

        numbers = {partition.partition: partition for partition in partitions}
        caught = await read_log(
            self._store, frozenset(numbers), partitions=self._settings.topic_partitions, why=why, go_on=go_on
        )
        if caught is None:
            return
        held = {partition.partition: span for partition, span in (await spans(consumer, list(partitions))).items()}
        for number, stands in (await land(self._store, caught, held)).items():
            self._seek(consumer, numbers[number], stands, held[number].start)
        consumer.resume(*(assigned & consumer.assignment()))
        self._set("live")

    def _set(self, state: State, problem: str | None = None) -> None:
        self.state, self.problem = state, problem
