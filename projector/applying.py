"""Records of the topic, applied to the read model: a partition's rows, parked users and offset in one transaction."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from prometheus_client import Gauge

from events.envelope import Opened
from events.recording import Position
from events.topics import Record
from projector.catch_up import APPLIED
from projector.lanes import apart, together
from projector.model_store import ModelStore, Progress, Step
from projector.opening import OpenedBatch, opened
from projector.parking import tell
from runtime.failpoints import failpoint
from runtime.logs import logger

POSITION = Gauge("muster_projector_position", "Position applied, by partition", ["partition"])

MOST_IDS_LOGGED: Final = 20

log = logger(__name__)


class TopicAhead(Exception):
    """The topic holds an event that the log does not: a restore or a failover lost acknowledged events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """So many records, opened, by partition; `steps` lead from where the partitions stood to `moved`."""

    records: int
    batches: Mapping[int, OpenedBatch]
    steps: Sequence[Step]
    moved: Mapping[int, Progress]


async def prepared(records: Mapping[int, Sequence[Record]], stands: Mapping[int, Progress]) -> Prepared:
    """Open what follows where the partitions stand, one or more records each."""
    batches = {number: await opened(found) for number, found in records.items()}
    moved = {
        number: replace(
            stands[number],
            next_offset=records[number][-1].offset + 1,
            # what the relay could publish only late is from further back
            position=max(stands[number].position, batch.newest[0] if batch.newest is not None else Position(0)),
        )
        for number, batch in batches.items()
    }
    steps = [
        Step(
            partition=number,
            from_offset=stands[number].next_offset,
            next_offset=after.next_offset,
            position=after.position,
        )
        for number, after in moved.items()
    ]
    return Prepared(records=sum(map(len, records.values())), batches=batches, steps=steps, moved=moved)


class Applier:
    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._head = Position(0)
        self._applying: asyncio.Task[None] | None = None
        self.under_way: Prepared | None = None

    def begin(self, found: Prepared) -> None:
        """Have them applied while the caller does something else; what was begun before is finished."""
        self.under_way = found
        self._applying = asyncio.create_task(self.apply(found))

    async def finish(self) -> None:
        """Wait for what is under way. Raises as `apply` does."""
        applying, self._applying, self.under_way = self._applying, None, None
        if applying is not None:
            await applying

    def give_up(self) -> None:
        """Leave what is under way: if it reached the database it is applied there, and else it is not."""
        if self._applying is not None:
            self._applying.cancel()
        self._applying = self.under_way = None

    async def apply(self, found: Prepared) -> None:
        """Apply them to the model, if the partitions stand there where the steps begin.

        Raises TopicAhead, PartitionMoved, VersionsMissing, NewerShape and TooManyParked: then of some partitions, or of
        all, nothing was done.
        """
        for batch in found.batches.values():
            if batch.newest is not None:
                await self._check_not_ahead(*batch.newest)
        failpoint("projector.before_apply")
        lanes = apart({number: len(batch.rows) for number, batch in found.batches.items()})
        await together(self._apply(found, numbers) for numbers in lanes)

    async def _apply(self, found: Prepared, numbers: Collection[int]) -> None:
        """Those of some partitions, in one transaction."""
        batches = [found.batches[number] for number in numbers]
        parked = await self._store.project(
            [row for batch in batches for row in batch.rows],
            [step for step in found.steps if step.partition in numbers],
            parks=[park for batch in batches for park in batch.parks],
            strict=True,
        )
        failpoint("projector.applied")
        tell(parked)
        for number in numbers:
            POSITION.labels(number).set(found.moved[number].position)
        _log(batches)

    async def _check_not_ahead(self, position: Position, event_id: UUID) -> None:
        """An event is in the log before it is in the topic; raises TopicAhead when it is not."""
        if position <= self._head:
            return
        self._head, found = await self._store.head_and_event(position)
        if found != event_id:
            raise TopicAhead(
                f"the topic holds position {position} (event {event_id}), which the log, ending at"
                f" {self._head}, does not: acknowledged events were lost from the log. Restore them, or delete both"
                " topics to have them published anew from the log as it is, and rebuild the read model"
            )


def _log(batches: Iterable[OpenedBatch]) -> None:
    events: list[Opened] = [event for batch in batches for event in batch.events]
    APPLIED.labels("topic").inc(len(events))
    log.info(
        "applied",
        events=len(events),
        newest_position=max((event.position for event in events), default=None),
        # under load a line would be longer than the events it tells of
        correlation_ids=[event.correlation_id for event in events[:MOST_IDS_LOGGED]],
    )
