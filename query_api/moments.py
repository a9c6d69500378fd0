"""Which moment a caller asks about: by time, by position of the log, or by version of the user."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import Query, Request
from pydantic import AwareDatetime

from events.archive import Archive
from events.histories import Entry
from events.recording import Position, RecordedEvent
from runtime.problems import Fault, Problem

LARGEST: Final = 2**63 - 1

AsOf = Annotated[
    AwareDatetime | None,
    Query(description="as it was at this moment (RFC 3339, with an offset)", examples=["2026-03-01T00:00:00Z"]),
]
AtPosition = Annotated[
    int | None, Query(ge=0, le=LARGEST, description="as it was once the log had this position, for ever the same")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What was asked for; at most one of the three."""

    as_of: datetime | None
    at_position: int | None
    version: int | None = None

    @property
    def asked(self) -> bool:
        return any(one is not None for one in (self.as_of, self.at_position, self.version))


async def user_moment(
    as_of: AsOf = None,
    at_position: AtPosition = None,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="as this version of the user")] = None,
) -> Moment:
    return checked(Moment(as_of=as_of, at_position=at_position, version=version))


async def position_of(archive: Archive, moment: Moment) -> Position:
    """The position that a time or a position means. Raises a 422 problem for one that is still to come."""
    if moment.as_of is not None:
        return await position_at(archive, moment.as_of, "as_of")
    assert moment.at_position is not None  # noqa: S101 - one of the two was asked for
    if moment.at_position > (head := await archive.head()):
        detail = f"the log ends at position {head}"
        raise _refused("no_such_position", detail, "at_position")
    return Position(moment.at_position)


async def position_at(archive: Archive, moment: datetime, parameter: str) -> Position:
    """Raises a 422 problem for a time that is still to come: more may be recorded until then."""
    if moment > datetime.now(UTC):
        raise _refused("in_the_future", "is still to come", parameter)
    return await archive.position_at(moment)


def archive_of(http: Request) -> Archive:
    """Raises a 503 problem when this process was given no key to open the log with."""
    archive: Archive | None = http.app.state.archive
    if archive is None:
        detail = "This query API has no KEK: it reads users as they are now. Ask one that has it."
        raise Problem(503, "no_key", detail)
    return archive


def readable(entry: Entry) -> RecordedEvent:
    """Raises a 500 problem for an event that cannot be opened."""
    if entry.recorded is None:
        detail = f"The event at position {entry.position} cannot be read: {entry.reason}."
        raise Problem(500, "event_unreadable", detail)
    return entry.recorded


def checked(moment: Moment) -> Moment:
    """Raises a 422 problem for more than one moment."""
    asked = [name for name in ("as_of", "at_position", "version") if getattr(moment, name) is not None]
    if len(asked) > 1:
        faults = [Fault(detail="goes with no other moment", code="one_moment", parameter=name) for name in asked]
        raise Problem(422, "one_moment", "Ask for one moment: as_of, at_position or version.", faults=faults)
    return moment


def _refused(code: str, detail: str, parameter: str) -> Problem:
    return Problem(422, code, f"{parameter}: {detail}.", faults=[Fault(detail=detail, code=code, parameter=parameter)])
