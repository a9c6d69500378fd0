"""The JSON of what the log holds: events of a user with what they changed, and the difference of two states."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from events.histories import Entry
from events.record import EXAMPLE as RECORD_EXAMPLE
from events.user import User, changes_between
from events.wire import ERASED_CHANGE, PERSONAL, changes_to_wire, time_to_wire

EVENT_EXAMPLE: Final[dict[str, Any]] = {
    "position": 4711,
    "event_id": "0192d3c9-17aa-7d02-8f3e-5b8f1b1c9a77",
    "type": "UserUpdated",
    "version": 2,
    "recorded_at": "2026-03-02T10:30:00.004211Z",
    "actor": {
        "subject": "0192d3c8-11f0-7aa0-b1b4-2f7cf0a4e0c3",
        "kind": "user",
        "session": "0192d3c8-9b6e-7f60-8d0b-6f0a5f0d2f10",
    },
    "reason": "moved to another team",
    "request_id": "0192d3c9-17a8-7c11-a2de-90c8f3d6be02",
    "correlation_id": "0192d3c9-17a8-7c11-a2de-90c8f3d6be02",
    "causation_id": "0192d3c9-17a8-7c11-a2de-90c8f3d6be02",
    "traceparent": None,
    "changes": {"attributes": {"old": {"team": "looms"}, "new": {"team": "engines"}}},
    "unreadable": None,
    "erased": False,
}


class ActorBody(BaseModel):
    subject: str = Field(description="the id of the user or client; or what an operator is known as")
    kind: Literal["user", "service", "operator"]
    session: str | None = Field(None, description="the session that they were logged in with")


class ChangeBody(BaseModel):
    old: Any
    new: Any
    erased: Literal[True] | None = Field(
        None, description="there when the values are gone: the user was erased, and they were personal"
    )


class EventBody(BaseModel):
    position: int = Field(description="place in the log")
    event_id: UUID
    type: Literal["UserCreated", "UserUpdated", "UserDeleted"]
    version: int = Field(description="the user's version after it")
    recorded_at: datetime
    actor: ActorBody | None
    reason: str | None
    request_id: str | None
    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None = Field(description="W3C Trace Context of the request")
    changes: dict[str, ChangeBody] | None = Field(description="old and new values by field; null: they cannot be read")
    unreadable: str | None = Field(description="why what changed cannot be read")
    erased: bool = Field(description="the user was erased: of personal fields, `changes` says only that they changed")


class HistoryBody(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": RECORD_EXAMPLE["id"], "events": [EVENT_EXAMPLE], "next_cursor": None}]
        }
    )

    user_id: UUID
    events: list[EventBody]
    next_cursor: str | None = Field(description="null: this is the last page")


class StateBody(BaseModel):
    version: int = Field(description="0: there was no such user yet")
    position: int
    recorded_at: datetime | None


class DiffBody(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": RECORD_EXAMPLE["id"],
                    "from": {"version": 1, "position": 4203, "recorded_at": "2026-03-01T09:00:00.002718Z"},
                    "to": {"version": 2, "position": 4711, "recorded_at": "2026-03-02T10:30:00.004211Z"},
                    "erased": False,
                    "changes": EVENT_EXAMPLE["changes"],
                }
            ]
        }
    )

    user_id: UUID
    from_: StateBody = Field(alias="from")
    to: StateBody
    erased: bool = Field(description="the user was erased: of personal fields nobody can say whether they differ")
    changes: dict[str, ChangeBody] = Field(description="fields that differ between the two, however often they changed")


def event_body(entry: Entry) -> dict[str, Any]:
    """The JSON of EventBody."""
    metadata = entry.metadata
    recorded = entry.recorded
    return {
        "position": entry.position,
        "event_id": str(entry.event_id),
        "type": entry.type_name,
        "version": entry.version,
        "recorded_at": time_to_wire(entry.recorded_at),
        "actor": metadata.get("actor"),
        **{
            name: metadata.get(name)
            for name in ("reason", "request_id", "correlation_id", "causation_id", "traceparent")
        },
        "changes": None if recorded is None else changes_to_wire(recorded.event.changes),
        "unreadable": entry.reason,
        "erased": entry.erased,
    }


def state_body(entry: Entry | None) -> Mapping[str, Any]:
    """The JSON of StateBody."""
    if entry is None:
        return {"version": 0, "position": 0, "recorded_at": None}
    return {
        "version": entry.version,
        "position": entry.position,
        "recorded_at": time_to_wire(entry.recorded_at),
    }


def changes_body(before: User | None, after: User | None) -> dict[str, Any]:
    """What differs between two states of a user, either of which may be the earlier; None: there was none yet.

    Of an erased user every personal field may: two states that are the same version do not.
    """
    changes: dict[str, Any] = {}
    if after is not None:
        changes = changes_to_wire(changes_between(before, after))
    elif before is not None:
        changes = {
            name: {"old": change["new"], "new": change["old"]}
            for name, change in changes_to_wire(changes_between(None, before)).items()
        }
    if is_erased(before, after) and _version(before) != _version(after):
        changes |= dict.fromkeys(sorted(PERSONAL), ERASED_CHANGE)
    return changes


def is_erased(*states: User | None) -> bool:
    return any(state is not None and state.erased for state in states)


def _version(state: User | None) -> int:
    return 0 if state is None else state.version
