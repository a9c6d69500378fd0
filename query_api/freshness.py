import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Header, Request

from events.partitioning import partition_of
from runtime.batching import Batcher
from runtime.database import Session
from runtime.problems import Fault, Problem

POLL = 0.005
WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?(\d{1,6})"?')

STANDS = """
SELECT p.partition, p.position, p.next_offset, r.position AS published, r.next_offset AS published_offset
FROM read_model.progress p
LEFT JOIN log.publication r ON r.topic = %s AND r.partition = p.partition
"""
LAG = """
SELECT h.position AS head, (SELECT e.recorded_at FROM log.events e WHERE e.position = %s) AS waiting_since
FROM log.head h
"""


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
    found = WAIT.search(", ".join(request.headers.getlist("prefer"))) if prefer is not None else None
    return Wanted(position=min_position, wait=float(found.group(1)) if found else 0.0)


class Freshness:
    """Knows which position the read model has reached, for one user's partition and for all.

    A partition has reached a position when its applied events go that far, or when the relay has published that far
    and the projector stands at the end of what was published: so partitions without traffic hold nobody up.
    """

    def __init__(
        self, session: Session, *, events_topic: str, partitions: int, max_wait: float, timeout: float
    ) -> None:
        self._session = session
        self._topic = events_topic
        self._partitions = partitions
        self._max_wait = max_wait
        self._looks: Batcher[None, Mapping[int, int]] = Batcher(
            self._look, limit=100_000, queue_limit=100_000, timeout=timeout
        )

    async def wait(self, asked: Wanted | None, user_id: UUID | None = None) -> Mapping[str, str]:
        """Return when the model has what was asked for, without holding any lock; gives the headers to answer with.

        Raises a 503 problem with the measured lag when that takes longer than the caller would wait.
        """
        if asked is None:
            return {}
        loop = asyncio.get_running_loop()
        bound = min(asked.wait, self._max_wait)
        deadline = loop.time() + bound
        while True:
            reached = self._reached(await self._looks.submit(None), user_id)
            if reached >= asked.position:
                return {"Preference-Applied": f"wait={bound:g}"} if asked.wait else {}
            if loop.time() >= deadline:
                raise await self._stale(asked, reached)
            await asyncio.sleep(POLL)

    async def close(self) -> None:
        await self._looks.close()

    def _reached(self, stands: Mapping[int, int], user_id: UUID | None) -> int:
        if user_id is not None:
            return stands.get(partition_of(user_id, self._partitions), 0)
        return min(stands.get(partition, 0) for partition in range(self._partitions))

    async def _look(self, asked: Sequence[None]) -> list[Mapping[int, int] | Exception]:
        rows = await self._session.fetch(STANDS, (self._topic,))
        stands = {
            row["partition"]: max(row["position"], row["published"])
            if row["published"] is not None and row["next_offset"] >= row["published_offset"]
            else row["position"]
            for row in rows
        }
        return [stands] * len(asked)

    async def _stale(self, asked: Wanted, reached: int) -> Problem:
        found = (await self._session.fetch(LAG, (reached + 1,)))[0]
        head: int = found["head"]
        since: datetime | None = found["waiting_since"]
        seconds = max(0.0, (datetime.now(UTC) - since).total_seconds()) if since is not None else 0.0
        events = max(0, head - reached)
        if asked.position > head:
            detail = f"The log ends at position {head}: there is no position {asked.position} yet."
        else:
            detail = f"The read model is at position {reached}, {events} events and {seconds:.1f} s behind."
        return Problem(
            503,
            "not_fresh_yet",
            detail,
            faults=[Fault(detail=detail, code="not_fresh_yet", parameter="Min-Position")],
            headers={"Retry-After": "1"},
            members={
                "wanted": asked.position,
                "reached": reached,
                "lag_events": events,
                "lag_seconds": round(seconds, 3),
            },
        )
