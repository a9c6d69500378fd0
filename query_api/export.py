"""A person's own data and history as one JSON document (GDPR, articles 15 and 20), read page by page from the log."""

from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, LiteralString
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field

from events.archive import Archive
from events.histories import Entry
from events.record import EXAMPLE as RECORD_EXAMPLE
from events.record import UserRecord
from events.wire import time_to_wire, user_to_wire, value_to_wire
from query_api.history import EVENT_EXAMPLE, ChangeBody, event_body
from runtime.database import Session

AT_ONCE: Final = 200
SET_AT: Final[LiteralString] = "SELECT changed_at FROM identity.credentials WHERE user_id = %s"
SESSIONS: Final[LiteralString] = """
SELECT id, scopes, user_agent, created_at, last_used_at, expires_at, ended_at
FROM identity.sessions WHERE subject = %s ORDER BY created_at, id
"""
EXAMPLE: Final[dict[str, Any]] = {
    "user_id": RECORD_EXAMPLE["id"],
    "exported_at": "2026-03-02T10:31:00.000000Z",
    "position": 4711,
    "record": {**RECORD_EXAMPLE, "deleted_at": None},
    "password_set_at": None,
    "sessions": [],
    "events": [
        {
            **{name: EVENT_EXAMPLE[name] for name in ("position", "event_id", "type", "version", "recorded_at")},
            "actor": {"kind": "user", "subject": EVENT_EXAMPLE["actor"]["subject"]},
            **{name: EVENT_EXAMPLE[name] for name in ("reason", "changes", "unreadable")},
        }
    ],
}


class ExportedRecord(UserRecord):
    deleted_at: datetime | None


class ExportedSession(BaseModel):
    id: UUID
    scopes: list[str] | None = Field(description="what the login asked for; null: all that the person may do")
    user_agent: str | None = Field(description="what the program called itself")
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ended_at: datetime | None


class ExportedActor(BaseModel):
    kind: Literal["user", "service", "operator"]
    subject: str | None = Field(description="an id, never a name; null: somebody who operates the service")
    session: UUID | None = Field(None, description="the person's own")


class ExportedEvent(BaseModel):
    position: int
    event_id: UUID
    type: Literal["UserCreated", "UserUpdated", "UserDeleted"]
    version: int
    recorded_at: datetime
    actor: ExportedActor | None
    reason: str | None
    changes: dict[str, ChangeBody] | None
    unreadable: str | None


class ExportBody(BaseModel):
    """All that Muster holds of a person but secrets and their digests. Of others who acted, ids alone."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    user_id: UUID
    exported_at: datetime
    position: int = Field(description="of the newest event that is in it")
    record: ExportedRecord | None = Field(
        description="as it is now, or was when the user was deleted; null: unreadable"
    )
    password_set_at: datetime | None = Field(description="null: there is none")
    sessions: list[ExportedSession] = Field(description="logins that are not purged yet")
    events: list[ExportedEvent]


async def exported(archive: Archive, session: Session, newest: Entry) -> AsyncGenerator[bytes]:
    """The document in pieces, up to the user's newest event. Raises what Archive and Session raise."""
    user_id = newest.user_id
    password = await session.fetch(SET_AT, (user_id,))
    head: dict[str, Any] = {
        "user_id": str(user_id),
        "exported_at": time_to_wire(datetime.now(UTC)),
        "position": newest.position,
        "record": user_to_wire(newest.recorded.event.user) if newest.recorded is not None else None,
        "password_set_at": value_to_wire(password[0]["changed_at"]) if password else None,
        "sessions": [
            {name: value_to_wire(value) for name, value in row.items()}
            for row in await session.fetch(SESSIONS, (user_id,))
        ],
    }
    yield orjson.dumps(head)[:-1] + b',"events":['
    version = 0
    while version < newest.version:
        page = await archive.history(user_id, beyond=version, newest_first=False, limit=AT_ONCE)
        page = [entry for entry in page if entry.version <= newest.version]
        yield (b"," if version else b"") + b",".join(orjson.dumps(_event(entry)) for entry in page)
        version = page[-1].version
    yield b"]}"


def _event(entry: Entry) -> dict[str, Any]:
    told = event_body(entry)
    names = ("position", "event_id", "type", "version", "recorded_at", "reason", "changes", "unreadable")
    return {name: told[name] for name in names} | {"actor": _actor(told["actor"], str(entry.user_id))}


def _actor(actor: Mapping[str, str] | None, person: str) -> dict[str, Any] | None:
    """Who acted, without what is another person's: an operator is known by a name, and a session is its owner's."""
    if actor is None:
        return None
    own = actor.get("subject") == person
    return {
        "kind": actor.get("kind"),
        "subject": None if actor.get("kind") == "operator" else actor.get("subject"),
        "session": actor.get("session") if own else None,
    }
