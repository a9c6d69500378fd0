"""The projector: carries the events topic into the read model, each effect once."""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from events.broker_connection import refusal_of
from events.keyring import WrongKey
from events.parked import TooManyParked
from events.topics import Record, WrongPartitions, ensure_topics, spans
from projector.applying import Applier, TopicAhead, prepared
from projector.catch_up import BATCH, land, read_log, read_users
from projector.consumer import LONG_POLL, SHORT_POLL, UNPLACED, events_consumer, pause, poll_widely, stay
from projector.model_store import (
    ModelStore,
    NewerShape,
    PartitionMoved,
    Progress,
    Published,
    VersionsMissing,
)
from projector.pending_lists import PendingLists
from projector.placing import Gap, can_go_on, following
from projector.vitals import Movement, Signs
from runtime.failpoints import linger
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.logs import logger
from runtime.pacing import LONGEST, Backoff, wait_at_most
from runtime.settings import Settings

RESTARTS = Counter("muster_projector_restarts_total", "Times a consumer that did not move was made anew")
SKIPPED = Counter("muster_projector_skipped_total", "Records that were applied before")

NO_PARTITIONS: Final = frozenset[int]()
STOP_WITHIN: Final = 6.0
# longer than STOP_WITHIN
GIVEN_UP_AFTER: Final = 8.0

State = Literal["starting", "live", "catching-up", "halted", "retrying", "stopped"]

log = logger(__name__)


class Stuck(Exception):
    """The consumer is alive and does not move although there is more in the topic."""


class Projector(ConsumerRebalanceListener):
    """One member of the consumer group. Runs until `stop`.

    The rows and the consumed offsets commit together, so a crash at any point neither loses an effect nor repeats
    one. It seeks to its own stored offsets, never to the broker's. Whenever the topic cannot be trusted to be whole
    (a missing version, a lost offset, a long way behind) it reads the log instead.
    """

    def __init__(self, settings: Settings, store: ModelStore, pending_lists: PendingLists) -> None:
        self._settings = settings
        self._store = store
        self._pending_lists = pending_lists
        self._stopping = asyncio.Event()
        # where each partition stands: its next offset, and the position that is applied
        self._placed: dict[TopicPartition, Progress] = {}
        self._misplaced = True
        self._applier = Applier(store)
        self._assigned = NO_PARTITIONS
        self._movement = Movement(_now())
        self._stuck = asyncio.Event()
        self.state: State = "starting"
        self.problem: str | None = None

    def stop(self) -> None:
        """Ask the projector to finish its batch, leave the group and return."""
        self._stopping.set()

    def signs(self) -> Signs:
        now = _now()
        return Signs(
            state=self.state,
            problem=self.problem,
            partitions=sorted(self._assigned),
            rate=self._movement.rate(now),
            still=self._movement.still(now),
        )

    def look(self, published: Mapping[int, Published]) -> None:
        """Notice, from what the relay has said, a topic that was made anew and a consumer that does not move."""
        waiting = bool(self._assigned - {partition.partition for partition in self._placed})
        for partition, stands in self._placed.items():
            found = published.get(partition.partition)
            if found is None:
                continue
            if found.epoch != stands.epoch:
                # offsets of another topic: whatever they seem to say, they are found anew
                self._misplaced = True
            waiting = waiting or found.next_offset > stands.next_offset
        if waiting and self._movement.still(_now()) > self._settings.stuck_after:
            self._stuck.set()

    async def run(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            backoff.attempt()
            try:
                await self._consume_unless_stuck()
                continue
            except Stuck as error:
                RESTARTS.inc()
                self._set("retrying", "Stuck")
                log.error("consumer made anew", reason=str(error))
            except (TopicAhead, WrongPartitions, WrongKey, NewerShape, TooManyParked) as error:
                # no machine may settle these: say it, keep looking whether an operator has
                self._set("halted", str(error))
                log.error("projector halted", reason=str(error))
            except (Unavailable, OutcomeUnknown, KafkaError, OSError, TimeoutError, PartitionMoved) as error:
                # the log tells the rest: an address or a name is nothing for whoever asks about readiness
                self._set("retrying", type(error).__name__)
                refusal = await refusal_of(self._settings, error)
                if refusal is not None:
                    self._set("retrying", str(refusal))
                log.warning("projector interrupted", reason=f"{type(error).__name__}: {refusal or error}")
            except Exception as error:  # a fault of this code: nothing is passed over, it is tried again, and seen
                self._set("retrying", type(error).__name__)
                log.exception("projector failed")
            await wait_at_most(self._stopping, LONGEST if self.state == "halted" else backoff.pause())
        self._set("stopped")

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to hand over: a batch that is on its way still commits from the offset that it begins at, or not."""
        for partition in revoked:
            self._placed.pop(partition, None)
            self._assigned -= {partition.partition}

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        # errors in here would be swallowed: the consuming loop places itself before it applies anything
        self._assigned = frozenset(partition.partition for partition in assigned)
        self._misplaced = True

    async def _consume_unless_stuck(self) -> None:
        """Raises Stuck, and whatever ends the consuming."""
        self._stuck.clear()
        self._movement.moved(_now())
        consuming = asyncio.create_task(self._consume())
        watching = asyncio.create_task(self._stuck.wait())
        try:
            await asyncio.wait({consuming, watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            if not consuming.done():
                consuming.cancel()
                await asyncio.wait({consuming}, timeout=GIVEN_UP_AFTER)
        if not consuming.done():
            # a client that waits for ever for a broker does not end either: it is left behind, and applies nothing more
            consuming.add_done_callback(_forget)
            raise Stuck(f"nothing moved for {self._settings.stuck_after:g} s, and the consumer does not end")
        if consuming.cancelled():
            raise Stuck(f"nothing moved for {self._settings.stuck_after:g} s")
        consuming.result()

    async def _consume(self) -> None:
        await self._store.check_partitions()
        await ensure_topics(self._settings)
        consumer = events_consumer(self._settings, self)
        self._placed.clear()
        self._misplaced = True
        try:
            await consumer.start()
            while not self._stopping.is_set():
                if self._misplaced:
                    await self._finish(consumer)
                    await self._place(consumer)
                    continue
                rest = self._settings.fetch_pause
                await linger("projector.poll")
                try:
                    polled = await poll_widely(consumer, seconds=SHORT_POLL if rest else LONG_POLL, limit=BATCH)
                except UNPLACED:
                    # leaving the group over it would upset it again
                    self._misplaced = True
                    continue
                if not polled:
                    await self._finish(consumer)
                    if rest:
                        await pause(consumer, self._stopping, rest)
                elif not self._misplaced:
                    try:
                        await self._apply(consumer, polled)
                    except PartitionMoved:
                        self._misplaced = True
            await self._finish(consumer)
        finally:
            self._assigned = NO_PARTITIONS
            self._applier.give_up()
            # leaving the group must not take longer than the group would take to notice
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN):
                    await consumer.stop()

    async def _place(self, consumer: AIOKafkaConsumer) -> None:
        """Seek every assigned partition to the offset that is stored with the rows."""
        assigned = consumer.assignment()
        self._misplaced = False
        if not assigned:
            await stay(consumer, 0.1)
            self._misplaced = not consumer.assignment() or self._misplaced
            return
        partitions = sorted(assigned)
        await self._store.begin(partition.partition for partition in partitions)
        progress = await self._store.progress(partition.partition for partition in partitions)
        published = await self._store.published()
        held = await spans(consumer, partitions)
        head = await self._store.head()
        lost: list[TopicPartition] = []
        for partition in partitions:
            stands = progress[partition.partition]
            span = held[partition]
            known = published.get(partition.partition)
            if not can_go_on(stands, span=span, head=head, published=known):
                lost.append(partition)
            else:
                self._seek(consumer, partition, stands, span.start)
        self._movement.moved(_now())
        if lost:
            await self._catch_up(consumer, lost, why="placed")
        self._set("live")
        log.info("projector placed", partitions=[partition.partition for partition in partitions])

    def _seek(self, consumer: AIOKafkaConsumer, partition: TopicPartition, stands: Progress, start: int) -> None:
        # one record back: it must be one that is applied, or the topic is not the one that the offset is of
        consumer.seek(partition, max(start, stands.next_offset - 1))
        self._placed[partition] = stands

    async def _apply(self, consumer: AIOKafkaConsumer, polled: Mapping[TopicPartition, Sequence[Record]]) -> None:
        """Open these records while those before them are applied, and have them applied next.

        Of a full poll more is to come, which is opened meanwhile; else this waits until they are applied.
        """
        fresh: dict[int, Sequence[Record]] = {}
        placed: dict[int, Progress] = {}
        for partition, records in polled.items():
            stands = self._placed.get(partition)
            if stands is None:
                continue
            try:
                current = following(records, stands)
            except Gap as gap:
                await self._finish(consumer)
                if not self._misplaced:
                    await self._catch_up(consumer, [partition], why=str(gap))
                continue
            SKIPPED.inc(len(records) - len(current))
            if current:
                fresh[partition.partition], placed[partition.partition] = current, stands
        if not fresh:
            return
        found = await prepared(fresh, placed)
        await self._finish(consumer)
        if self._misplaced:
            # they follow what was not applied, or what somebody else applies: from where that is, they come again
            return
        for partition in self._placed.keys() & polled.keys():
            self._placed[partition] = found.moved.get(partition.partition, self._placed[partition])
        self._applier.begin(found)
        if sum(map(len, polled.values())) < BATCH:
            await self._finish(consumer)

    async def _finish(self, consumer: AIOKafkaConsumer) -> None:
        """Wait until what is under way is applied; whatever was polled after it is void when it is not."""
        found = self._applier.under_way
        if found is None:
            return
        try:
            await self._applier.finish()
        except PartitionMoved:
            self._misplaced = True
        except VersionsMissing as error:
            log.error("the topic lacks events that the log has", reason=str(error))
            # they may be from further back than where the partition is, published late
            await read_users(self._store, error.held, partitions=self._settings.topic_partitions)
            mine = [partition for partition in self._placed if partition.partition in found.moved]
            if mine and not self._misplaced:
                with contextlib.suppress(PartitionMoved):
                    await self._catch_up(consumer, mine, why="missing_version")
            self._misplaced = True
        else:
            self._movement.moved(_now(), found.records)
            self._set("live")
            await self._pending_lists.added(found.records)

    async def _catch_up(self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], *, why: str) -> None:
        """Read the log for these partitions up to its head, then go on in the topic after what that covers."""
        self._set("catching-up")
        for partition in partitions:
            self._placed.pop(partition, None)

        async def go_on(events: int) -> bool:
            self._movement.moved(_now(), events)
            await self._pending_lists.added(events)
            await stay(consumer, 0)
            return not self._misplaced and not self._stopping.is_set()

        numbers = {partition.partition: partition for partition in partitions}
        assigned = consumer.assignment()
        consumer.pause(*assigned)
        try:
            caught = await read_log(
                self._store, frozenset(numbers), partitions=self._settings.topic_partitions, why=why, go_on=go_on
            )
            if caught is None:
                return
            held = {partition.partition: span for partition, span in (await spans(consumer, list(partitions))).items()}
            for number, stands in (await land(self._store, caught, held)).items():
                self._seek(consumer, numbers[number], stands, held[number].start)
        finally:
            consumer.resume(*(assigned & consumer.assignment()))
        self._set("live")

    def _set(self, state: State, problem: str | None = None) -> None:
        self.state, self.problem = state, problem


def _forget(consuming: "asyncio.Task[None]") -> None:
    if not consuming.cancelled() and (error := consuming.exception()) is not None:
        log.warning("a consumer that was left behind has ended", reason=f"{type(error).__name__}: {error}")


def _now() -> float:
    """Seconds on a clock that only runs forward."""
    return time.monotonic()
