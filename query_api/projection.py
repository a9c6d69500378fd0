"""How the projection is, judged from where it stands: what operators, probes and dashboards are told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import orjson

from query_api.standing import Build, Parked, PartitionStanding, ProjectorSeen, Standing

STATES: Final = ("live", "catching-up", "stalled", "rebuilding", "parked")
# seconds: who was not seen for so long does not run
SEEN_WITHIN: Final = 5.0
# seconds that something may wait while nothing is published, or while its partition stands still
PUBLISHED_WITHIN: Final = 5.0
MOVED_WITHIN: Final = 10.0
# what may be missing while it is live
FEW_EVENTS, FEW_SECONDS = 1000, 2.0
WORKING: Final = frozenset({"starting", "live", "catching-up"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """Positions as in standing.PartitionStanding; `projector` is the instance that has the partition now."""

    partition: int
    published: int
    applied: int
    reached: int
    lag_events: int
    lag_seconds: float
    moved_at: datetime | None
    projector: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """`state` is one of STATES, with a number if it is parked; `why` says what it comes from.

    `published` and `applied` are the lowest positions of all partitions that are published and reached. The model lacks
    `lag_events` at most, the oldest of which was recorded `lag_seconds` before `checked_at`; 0 when none is missing.
    `rate` is in events a second. Times are of the database's clock.
    """

    state: str
    why: str | None
    head: int
    published: int
    applied: int
    lag_events: int
    lag_seconds: float
    rate: float
    moved_at: datetime | None
    checked_at: datetime
    partitions: Sequence[PartitionState]
    projectors: Sequence[ProjectorSeen]
    parked: Parked
    rebuild: Build | None

    @property
    def kind(self) -> str:
        return self.state.partition(" ")[0]

    def to_json(self) -> bytes:
        return orjson.dumps(self, option=orjson.OPT_UTC_Z)


def projection_of(standing: Standing) -> Projection:
    living = living_projectors(standing)
    partitions = [_partition_state(one, standing, living) for one in standing.partitions]
    applied = min(one.reached for one in standing.partitions)
    lag_events = max(0, standing.head - applied)
    lag_seconds = max(one.lag_seconds for one in partitions)
    state, why = _judged(standing, lag_events, lag_seconds)
    return Projection(
        state=state,
        why=why,
        head=standing.head,
        published=min(one.published for one in standing.partitions),
        applied=applied,
        lag_events=lag_events,
        lag_seconds=lag_seconds,
        rate=round(sum(one.rate for one in living), 1),
        moved_at=max((one.moved_at for one in standing.partitions if one.moved_at is not None), default=None),
        checked_at=standing.at.astimezone(UTC),
        partitions=partitions,
        projectors=standing.projectors,
        parked=standing.parked,
        rebuild=standing.build,
    )


def living_projectors(standing: Standing) -> Sequence[ProjectorSeen]:
    return [one for one in standing.projectors if one.seen <= SEEN_WITHIN]


def age(moment: datetime | None, standing: Standing) -> float:
    """Seconds; 0 for what there is not."""
    return 0.0 if moment is None else max(0.0, (standing.at - moment).total_seconds())


def _judged(standing: Standing, lag_events: int, lag_seconds: float) -> tuple[str, str | None]:
    """What is worst comes first."""
    parked = standing.parked
    if troubles := [*_relay_troubles(standing), *_projector_troubles(standing, waiting=lag_events > 0)]:
        return "stalled", "; ".join(troubles)
    if lag_events > FEW_EVENTS or lag_seconds > FEW_SECONDS:
        return "catching-up", f"{lag_events} events and {lag_seconds:.1f} s behind"
    if standing.build is not None and standing.build.running:
        return "rebuilding", f"the new table is in its phase of {standing.build.phase}"
    if parked.users or parked.records:
        return f"parked {parked.users + parked.records}", _parked_words(parked)
    return "live", None


def _relay_troubles(standing: Standing) -> Iterator[str]:
    waiting = max((age(one.unpublished_since, standing) for one in standing.partitions), default=0.0)
    published_at = max((one.published_at for one in standing.partitions if one.published_at is not None), default=None)
    silent = published_at is None or age(published_at, standing) > PUBLISHED_WITHIN
    # one that works off what has gathered does publish
    if waiting > PUBLISHED_WITHIN and silent:
        yield f"the relay publishes nothing: an event has waited for {waiting:.0f} s"


def _projector_troubles(standing: Standing, *, waiting: bool) -> Iterator[str]:
    living = living_projectors(standing)
    if not living:
        last = min(standing.projectors, key=lambda one: one.seen, default=None)
        yield "no projector is running" + (f": {last.instance} was last seen {last.seen:.0f} s ago" if last else "")
        return
    if not any(one.state in WORKING for one in living):
        for one in living:
            # who waits for an operator will not apply the next event either
            if waiting or one.state == "halted":
                yield f"projector {one.instance} is {one.state}" + (f": {one.problem}" if one.problem else "")
        return
    still = [one.partition for one in standing.partitions if _stands_still(one, standing)]
    if still:
        names = ", ".join(map(str, still))
        yield f"partition{'s' if len(still) > 1 else ''} {names} stood still for {MOVED_WITHIN:g} s with events waiting"


def _stands_still(one: PartitionStanding, standing: Standing) -> bool:
    """What is not published yet is not the projector's, and a partition may have had nothing to do until just now."""
    idle = one.moved_at is None or age(one.moved_at, standing) > MOVED_WITHIN
    return one.waits and idle and age(one.waiting_since, standing) > MOVED_WITHIN


def _parked_words(parked: Parked) -> str:
    found = {
        "users held back from the read model": parked.projector,
        "users held back from the topics": parked.relay,
        "records of the topic set aside": parked.records,
    }
    return ", ".join(f"{what}: {count}" for what, count in found.items() if count)


def _partition_state(one: PartitionStanding, standing: Standing, living: Sequence[ProjectorSeen]) -> PartitionState:
    having = [projector for projector in living if one.partition in projector.partitions]
    # while they hand over, two may say that they have it
    having.sort(key=lambda projector: (projector.state not in WORKING, projector.seen))
    return PartitionState(
        partition=one.partition,
        published=one.published,
        applied=one.applied,
        reached=one.reached,
        lag_events=max(0, standing.head - one.reached),
        lag_seconds=round(age(one.waiting_since, standing), 3),
        moved_at=one.moved_at,
        projector=having[0].instance if having else None,
    )
