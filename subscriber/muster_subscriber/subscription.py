import asyncio
import contextlib
import logging
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Literal, Self, TypeVar
from uuid import UUID

from muster_subscriber.application import Application
from muster_subscriber.bookmarks import Phase
from muster_subscriber.contract import Batch, Change
from muster_subscriber.decoding import Record, identity_of
from muster_subscriber.follower import Bootstrap, Counts, Follower, MissingEvents, Policy, Taken
from muster_subscriber.pacing import delays
from muster_subscriber.source import Away, OutOfRange, Source, Span, Topic

LIMIT: Final = 500
LOOK_EVERY: Final = 5.0

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class _Stopped(Exception):
    """Somebody called `stop`."""


def partition_of(user_id: UUID, partitions: int) -> int:
    """The partition of a user's records in both topics: CRC-32 of the key, as librdkafka's `consistent`."""
    return zlib.crc32(str(user_id).encode()) % partitions


class Subscription:
    """Every change of every user, for ever: `async for change in subscription`, or a batch at a time.

    Each is handed over once the one before was dealt with: what the application stored with its bookmark is not handed
    over again, what it did not store is. Raises Poisoned, Lost and Moved, and whatever the application's methods raise;
    a broker or feed that is away is waited for.
    """

    def __init__(
        self,
        source: Source,
        application: Application,
        *,
        feed: MissingEvents | None = None,
        partitions: Sequence[int] | None = None,
        policy: Policy | None = None,
        limit: int = LIMIT,
    ) -> None:
        self.counts = Counts()
        self._source = source
        self._application = application
        self._feed = feed
        self._partitions = partitions
        self._policy = policy or Policy()
        self._limit = limit
        self._stopping = asyncio.Event()
        self._running: list[AsyncGenerator[Any]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        for running in self._running:
            # one that another task is in ends by itself
            with contextlib.suppress(RuntimeError):
                await running.aclose()

    def stop(self) -> None:
        """End the iteration, also one that waits, from any task of the loop."""
        self._stopping.set()

    def __aiter__(self) -> AsyncIterator[Change]:
        if self._policy.on_poison == "deliver":
            raise ValueError("poison is delivered in batches: use batches()")
        return self._run(self._changes())

    def batches(self) -> AsyncIterator[Batch]:
        return self._run(self._batches())

    def _run(self, generator: AsyncGenerator[Result]) -> AsyncGenerator[Result]:
        self._running.append(generator)
        return generator

    async def _changes(self) -> AsyncGenerator[Change]:
        async with aclosing(self._taken()) as all_taken:
            async for follower, taken in all_taken:
                for change in taken.changes:
                    yield change
                await self._keep_rest(follower)

    async def _batches(self) -> AsyncGenerator[Batch]:
        async with aclosing(self._taken()) as all_taken:
            async for follower, taken in all_taken:
                if not (taken.changes or taken.poison):
                    await self._keep_rest(follower)
                    continue
                rest = follower.mark_rest()
                last = taken.changes[-1].bookmark if rest is None else rest
                yield Batch(changes=tuple(taken.changes), poison=tuple(taken.poison), bookmark=last.since(taken.before))

    async def _keep_rest(self, follower: Follower) -> None:
        # a bootstrap that is not done begins anew, wherever it was
        if follower.place.phase is Phase.FOLLOWING and (bookmark := follower.mark_rest()) is not None:
            await self._application.keep(bookmark)

    async def _taken(self) -> AsyncGenerator[tuple[Follower, Taken]]:
        waits = delays()
        with contextlib.suppress(_Stopped):
            while True:
                try:
                    async with self._source.opened(), aclosing(self._follow()) as found:
                        async for follower, taken in found:
                            waits = delays()
                            yield follower, taken
                            if taken.stop is not None:
                                raise taken.stop
                        return
                except OutOfRange as error:
                    trouble = f"the topics are not what they were: {error}"
                except Away as error:
                    trouble = f"the broker is away: {error}"
                self.counts.retries += 1
                delay = next(waits)
                log.warning("%s; again in %.1f s", trouble, delay)
                await self._unless_stopped(asyncio.sleep(delay))

    async def _follow(self) -> AsyncGenerator[tuple[Follower, Taken]]:
        every = await self._unless_stopped(self._source.partitions())
        followers = await self._followers(every if self._partitions is None else self._partitions)
        # of bootstraps that go on while following: topics that were made anew are not full yet
        unfinished: dict[int, Bootstrap] = {}
        for number, follower in followers.items():
            if await self._must_bootstrap(follower):
                unfinished[number] = Bootstrap()
                async with aclosing(self._bootstrap(follower, unfinished, len(every))) as bootstrapping:
                    async for taken in bootstrapping:
                        yield follower, taken
        await self._resume(followers)
        looked = time.monotonic()
        while (polled := await self._unless_stopped(self._source.poll(limit=self._limit))) is not None:
            back = [followers[number] for number, records in polled.items() if followers[number].goes_back(records)]
            await self._check_sameness(back)
            for number, records in polled.items():
                async with aclosing(self._pass_on(followers[number], records, unfinished, len(every))) as passed:
                    async for taken in passed:
                        yield followers[number], taken
            if back:
                # looking back has moved the source
                await self._resume(followers)
            if time.monotonic() - looked > LOOK_EVERY:
                _compare(followers, await self._unless_stopped(self._source.look()))
                looked = time.monotonic()

    async def _pass_on(
        self, follower: Follower, records: Sequence[Record], unfinished: dict[int, Bootstrap], partitions: int
    ) -> AsyncGenerator[Taken]:
        met = unfinished.get(follower.partition)
        yield await self._unless_stopped(follower.take(records, met))
        if met is not None:
            async with aclosing(self._finish(follower, unfinished, partitions)) as finishing:
                async for taken in finishing:
                    yield taken

    async def _followers(self, partitions: Sequence[int]) -> Mapping[int, Follower]:
        stored = await self._application.bookmarks()
        return {
            number: Follower(number, stored.get(number), self._application, self._feed, self._policy, self.counts)
            for number in partitions
        }

    async def _resume(self, followers: Mapping[int, Follower]) -> None:
        await self._source.follow({number: follower.place.offset for number, follower in followers.items()})

    async def _must_bootstrap(self, follower: Follower) -> bool:
        """Whether a partition never was, or cannot be gone on with: the topic is not the one that it was read from."""
        place = follower.place
        topic = Topic.SNAPSHOT if place.phase is Phase.SNAPSHOT else Topic.EVENTS
        span = (await self._unless_stopped(self._source.spans(topic, [follower.partition])))[follower.partition]
        remade = not _within(follower, span) or not await self._same(follower, topic, span)
        if remade:
            follower.wait_for_all()
        # a snapshot is begun anew anyway, wherever it begins
        if remade or (topic is Topic.EVENTS and place.offset < span.start):
            self.counts.lost_places += 1
            log.warning(
                "partition %d was %s: offset %d is to be read, it has %d to %d; bootstrapping",
                *(follower.partition, "made anew" if remade else "truncated", place.offset, span.start, span.end),
            )
            return True
        return place.phase is not Phase.FOLLOWING

    async def _same(self, follower: Follower, topic: Topic, span: Span) -> bool:
        """Whether the record before the place is the one that was read there, as far as that can be told."""
        place = follower.place
        if place.last is None or not span.start < place.offset <= span.end:
            return True
        before = Span(start=place.offset - 1, end=place.offset)
        async with aclosing(_generator(self._source.read(topic, follower.partition, before, limit=1))) as read:
            async for records in read:
                return identity_of(records[0]) == place.last
        return True

    async def _check_sameness(self, followers: Sequence[Follower]) -> None:
        """Raises OutOfRange when a topic has been made anew under the reader."""
        if not followers:
            return
        spans = await self._unless_stopped(
            self._source.spans(Topic.EVENTS, [follower.partition for follower in followers])
        )
        other = [one.partition for one in followers if not await self._same(one, Topic.EVENTS, spans[one.partition])]
        if other:
            raise OutOfRange(frozenset(other))

    async def _bootstrap(
        self, follower: Follower, unfinished: dict[int, Bootstrap], partitions: int
    ) -> AsyncGenerator[Taken]:
        """The snapshot to its end, then what the events topic holds.

        The events are read from their beginning: one may be in that topic already and not yet in the snapshot.
        """
        log.info("bootstrapping partition %d", follower.partition)
        number, met = follower.partition, unfinished[follower.partition]
        for topic, phase in ((Topic.SNAPSHOT, Phase.SNAPSHOT), (Topic.EVENTS, Phase.CATCHING_UP)):
            span = (await self._unless_stopped(self._source.spans(topic, [number])))[number]
            follower.enter(phase, span.start)
            async with aclosing(_generator(self._source.read(topic, number, span, limit=self._limit))) as read:
                async for records in read:
                    snapshot = topic is Topic.SNAPSHOT
                    yield await self._unless_stopped(follower.take(records, met, snapshot=snapshot))
        async with aclosing(self._finish(follower, unfinished, partitions)) as finishing:
            async for taken in finishing:
                yield taken

    async def _finish(
        self, follower: Follower, unfinished: dict[int, Bootstrap], partitions: int
    ) -> AsyncGenerator[Taken]:
        """Once a bootstrap has all, tell the application who is gone, and follow from there."""
        met = unfinished[follower.partition]
        if met.reached < follower.place.until:
            return
        gone = [
            user_id
            async for user_id in self._application.living()
            if partition_of(user_id, partitions) == follower.partition and not met.lives(user_id)
        ]
        for first in range(0, len(gone), self._limit):
            yield await follower.gone(gone[first : first + self._limit])
        follower.settle()
        del unfinished[follower.partition]
        self.counts.bootstraps += 1
        log.info("partition %d is bootstrapped", follower.partition)
        yield Taken(before=None)

    async def _unless_stopped(self, work: Awaitable[Result]) -> Result:
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                raise _Stopped
            return task.result()
        finally:
            task.cancel()
            stop.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)


def _compare(followers: Mapping[int, Follower], spans: Mapping[int, Span]) -> None:
    lost = {
        number
        for number, span in spans.items()
        if followers[number].place.offset < span.start or not _within(followers[number], span)
    }
    if lost:
        raise OutOfRange(frozenset(lost))


def _within(follower: Follower, span: Span) -> bool:
    """Whether the topic may be the one that was read, cut off or not: its beginning never goes back, nor its end."""
    return follower.place.start <= span.start and follower.place.offset <= span.end


async def _generator(iterator: AsyncIterator[Result]) -> AsyncGenerator[Result]:
    async for one in iterator:
        yield one


def subscribe(
    application: Application,
    *,
    events_topic: str = "users.events.v1",
    snapshot_topic: str = "users.snapshot.v1",
    feed: MissingEvents | None = None,
    partitions: Sequence[int] | None = None,
    on_poison: Literal["raise", "deliver"] = "raise",
    strict: bool = False,
    limit: int = LIMIT,
    rest: float = 0.0,
    **connection: Any,  # noqa: ANN401 - what aiokafka takes
) -> Subscription:
    """Follow the users of Muster.

    `feed` brings what the topics lost; without it, or where it has nothing, `change.missed` tells of it, or Lost is
    raised if `strict`. `partitions`: some of them alone, when several instances share the work. `on_poison="deliver"`
    puts records that cannot be read into `batch.poison`. `limit`: records at a time. `connection` is handed to
    aiokafka: bootstrap_servers, security_protocol, ssl_context, sasl_mechanism ...
    """
    # imported here: what drives an application by hand, such as its tests, needs no broker's client
    from muster_subscriber.kafka import Broker  # noqa: PLC0415

    broker = Broker(events_topic=events_topic, snapshot_topic=snapshot_topic, rest=rest, connection=connection)
    policy = Policy(on_poison=on_poison, strict=strict)
    return Subscription(broker, application, feed=feed, partitions=partitions, policy=policy, limit=limit)
