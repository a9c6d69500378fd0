import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Header, Request

from events.partitioning import partition_of
from query_api.lookout import Lookout
from query_api.projection import age, living_projectors
from query_api.standing import PartitionStanding, Standing
from runtime.problems import Fault, Problem

# seconds after which who still waits is looked after more closely, and then how often
CLOSER_LOOK_AFTER, CLOSER_LOOK_EVERY = 0.1, 1.0
WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?(\d{1,6})"?')


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a caller asked for: everything up to `position`, waiting at most `wait` seconds (RFC 7240) for it."""

    position: int
    wait: float


async def wanted(
    request: Request,
    min_position: Annotated[
        int | None,
        Header(
            alias="Min-Position",
            ge=0,
            le=2**63 - 1,
            description="the Event-Position of a write: answer only from a model that has it",
        ),
    ] = None,
    prefer: Annotated[
        str | None,
        Header(alias="Prefer", description="wait=N: wait up to N seconds for Min-Position", examples=["wait=5"]),
    ] = None,
) -> Wanted | None:
    if min_position is None:
        return None
    return wanted_of(min_position, request.headers.getlist("prefer") if prefer is not None else ())


def wanted_of(position: int, prefer: Sequence[str]) -> Wanted:
    """From the lines of the header Prefer."""
    found = WAIT.search(", ".join(prefer)) if prefer else None
    return Wanted(position=position, wait=float(found.group(1)) if found else 0.0)


class Freshness:
    """Says whether the read model has what a caller asked for: of one user, or of all."""

    def __init__(self, lookout: Lookout, *, max_wait: float) -> None:
        self._lookout = lookout
        self._max_wait = max_wait

    async def wait(self, asked: Wanted | None, user_id: UUID | None = None) -> Mapping[str, str]:
        """Return when the model has what was asked for, without holding any lock; gives the headers to answer with.

        Raises a 503 problem: `user_parked` at once, when an event of this user, or of a list the very event that is
        asked for, is held back; `not_fresh_yet` or `projector_stopped`, with the measured lag, when it takes longer
        than the caller would wait. Users who are held back otherwise are counted in a list's headers.
        """
        if asked is None:
            return {}
        loop = asyncio.get_running_loop()
        bound = min(asked.wait, self._max_wait)
        now = loop.time()
        deadline, closer_look = now + bound, now + CLOSER_LOOK_AFTER
        whose = user_id
        first = True
        glance = await self._lookout.glance_or_seen()
        while True:
            fresh = glance.reached_for(user_id) >= asked.position
            standing: Standing | None = None
            now = loop.time()
            if not fresh and now >= min(deadline, closer_look):
                standing = await self._lookout.look()
                fresh = not _lacking(standing, asked, user_id)
                # who was held back meanwhile is not taken for applied
                glance = await self._lookout.glance()
                closer_look = now + CLOSER_LOOK_EVERY
            held = {user: position for user, position in glance.held.items() if position <= asked.position}
            if held and whose is None and (first or fresh):
                whose = await self._lookout.writer(asked.position)
            if whose is not None and whose in held:
                raise _parked(asked, held[whose])
            if fresh:
                headers = {"Preference-Applied": f"wait={bound:g}"} if asked.wait else {}
                return headers | ({"Parked-Users": str(len(held))} if held and user_id is None else {})
            if standing is not None and now >= deadline:
                raise _late(asked, standing, user_id)
            first = False
            glance = await self._lookout.glance_at(
                asked.position, user_id, seconds=min(deadline, closer_look) - loop.time()
            )


def _concerned(standing: Standing, user_id: UUID | None) -> Sequence[PartitionStanding]:
    if user_id is None:
        return standing.partitions
    return [standing.partitions[partition_of(user_id, len(standing.partitions))]]


def _lacking(standing: Standing, asked: Wanted, user_id: UUID | None) -> Sequence[PartitionStanding]:
    return [one for one in _concerned(standing, user_id) if one.reached < asked.position]


def _late(asked: Wanted, standing: Standing, user_id: UUID | None) -> Problem:
    concerned = _concerned(standing, user_id)
    reached = min(one.reached for one in concerned)
    events = max(0, standing.head - reached)
    seconds = max(age(one.waiting_since, standing) for one in concerned)
    code, retry_after = "not_fresh_yet", 1
    detail = f"The read model is at position {reached}, {events} events and {seconds:.1f} s behind."
    if asked.position > standing.head:
        detail = f"The log ends at position {standing.head}: there is no position {asked.position} yet."
    elif alone := _without_projector(_lacking(standing, asked, user_id), standing):
        code, retry_after = "projector_stopped", 5
        detail = f"No projector is running for partition {', '.join(map(str, alone))}. {detail}"
    return _problem(
        asked,
        code,
        detail,
        retry_after=retry_after,
        reached=reached,
        lag_events=events,
        lag_seconds=round(seconds, 3),
    )


def _without_projector(lacking: Sequence[PartitionStanding], standing: Standing) -> Sequence[int]:
    served = {number for projector in living_projectors(standing) for number in projector.partitions}
    return [one.partition for one in lacking if one.partition not in served]


def _parked(asked: Wanted, position: int) -> Problem:
    detail = (
        f"The user's event at position {position} could not be carried on: the read model has them as before it until"
        " an operator has settled that."
    )
    return _problem(asked, "user_parked", detail, retry_after=60, held_back_from=position)


def _problem(asked: Wanted, code: str, detail: str, *, retry_after: int, **members: float) -> Problem:
    return Problem(
        503,
        code,
        detail,
        faults=[Fault(detail=detail, code=code, parameter="Min-Position")],
        headers={"Retry-After": str(retry_after)},
        members={"wanted": asked.position, **members},
    )
