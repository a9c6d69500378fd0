"""The read model brought up to date from the log itself, where the topic cannot be trusted to be whole."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prometheus_client import Counter

from events.partitioning import partition_of
from events.reader import LoggedRecord, Stretch, Unreadable
from events.recording import Position
from events.topics import Span
from projector.model_store import ModelStore, Progress, Published, Step
from projector.parking import Park, park_logged, tell
from projector.rows import NoRow, Row, row_of_logged
from runtime.logs import logger

APPLIED = Counter("muster_projector_applied_total", "Events applied to the read model", ["source"])
CAUGHT_UP = Counter("muster_projector_catch_ups_total", "Times the log was read instead of the topic", ["why"])

BATCH: Final = 2000

log = logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """Partitions that have all of the log up to `position`; `published` is from before the log was read."""

    position: Position
    progress: Mapping[int, Progress]
    published: Mapping[int, Published]


async def read_log(
    store: ModelStore,
    numbers: frozenset[int],
    *,
    partitions: int,
    why: str,
    go_on: Callable[[int], Awaitable[bool]],
) -> Caught | None:
    """Apply what the log has for these partitions and the model lacks, up to the log's head.

    `go_on` is asked after each batch, and told how many events that applied; None when it said no (what was applied
    stays). Raises PartitionMoved.
    """
    CAUGHT_UP.labels(why).inc()
    # the offsets first: whatever is before them is in the log before its head, which is read next
    published = await store.published()
    goal = await store.head()
    progress = await store.progress(numbers)
    position = Position(min(stands.position for stands in progress.values()))
    log.info("reading the log", why=why, partitions=sorted(numbers), from_position=position + 1, to=goal)

    def wanted(user_id: UUID) -> bool:
        return partition_of(user_id, partitions) in numbers

    async with contextlib.aclosing(_stretches(store, position, goal, wanted)) as stretches:
        async for stretch in stretches:
            position = stretch.end if stretch.end is not None else goal
            rows, parks = sorted_out(stretch.found, partitions)
            progress = await _move(store, progress, rows, position, {}, parks=parks)
            APPLIED.labels("log").inc(len(rows))
            if not await go_on(len(rows)):
                return None
    return Caught(position=position, progress=progress, published=published)


async def _stretches(
    store: ModelStore, position: Position, goal: Position, wanted: Callable[[UUID], bool]
) -> AsyncGenerator[Stretch[LoggedRecord]]:
    """The log after `position` up to `goal` or further; the next is read while the caller has one."""
    reading: asyncio.Task[Stretch[LoggedRecord]] | None = None
    try:
        while position < goal:
            stretch = await (reading or store.records_after(position, BATCH, wanted))
            reading = None
            position = stretch.end if stretch.end is not None else goal
            if position < goal:
                reading = asyncio.create_task(store.records_after(position, BATCH, wanted))
            yield stretch
    finally:
        if reading is not None:
            reading.cancel()


async def read_users(store: ModelStore, held: Mapping[UUID, int], *, partitions: int) -> None:
    """Apply what the log has of these users after the versions that the model holds, wherever in the log it is."""
    for user_id, version in held.items():
        after = version
        while found := await store.records_of(user_id, after + 1, BATCH):
            rows, parks = sorted_out(found, partitions)
            tell(await store.project(rows, [], parks=parks, strict=False))
            APPLIED.labels("log").inc(len(rows))
            after = found[-1].version


def sorted_out(found: Iterable[LoggedRecord | Unreadable], partitions: int) -> tuple[list[Row], list[Park]]:
    """What can be applied of these events, and what is to be parked: of a user nothing after that."""
    rows: list[Row] = []
    parks: dict[UUID, Park] = {}
    for one in found:
        if one.user_id in parks:
            continue
        try:
            rows.append(row_of_logged(one))
        except NoRow as error:
            parks[one.user_id] = park_logged(one, str(error), partition_of(one.user_id, partitions))
    return rows, list(parks.values())


async def land(store: ModelStore, caught: Caught, held: Mapping[int, Span]) -> Mapping[int, Progress]:
    """Put the partitions where the topic goes on: at an offset before which nothing is newer than what was read.

    `held` is what each partition of the topic holds. Raises PartitionMoved.
    """
    offsets: dict[int, int] = {}
    for number, span in held.items():
        found = caught.published.get(number)
        known = found is not None and span.start <= found.next_offset <= span.end
        offsets[number] = found.next_offset if found is not None and known else span.start
    epochs = {number: found.epoch for number, found in caught.published.items()}
    return await _move(store, caught.progress, [], caught.position, offsets, epochs=epochs)


async def _move(
    store: ModelStore,
    progress: Mapping[int, Progress],
    rows: Sequence[Row],
    position: Position,
    offsets: Mapping[int, int],
    *,
    epochs: Mapping[int, int] | None = None,
    parks: Sequence[Park] = (),
) -> Mapping[int, Progress]:
    moved = {
        number: Progress(
            next_offset=offsets.get(number, stands.next_offset),
            position=Position(max(position, stands.position)),
            epoch=(epochs or {}).get(number, stands.epoch),
        )
        for number, stands in progress.items()
    }
    steps = [
        Step(
            partition=number,
            from_offset=progress[number].next_offset,
            next_offset=stands.next_offset,
            position=stands.position,
            epoch=stands.epoch,
        )
        for number, stands in moved.items()
    ]
    tell(await store.project(rows, steps, parks=parks, strict=False))
    return moved
