"""Persons who are erased: what was asked for, and which steps are done (migrations/sql/erasure.sql)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, LiteralString
from uuid import UUID

import orjson

from events.recording import Metadata, Position
from events.user import UserId
from events.writer import Idempotency
from runtime.database import Connection
from runtime.fleeting import FORGOTTEN_WITHIN

Requested = Literal["recorded", "known", "unknown", "key_reused"]

COLUMNS: Final = "user_id, requested_at, metadata, position, deleted_at, erased_at, removed, buried_at, completed_at"
OF_USER: Final[LiteralString] = f"SELECT {COLUMNS} FROM log.erasures WHERE user_id = %s"  # noqa: S608 - a constant
LISTED: Final[LiteralString] = f"SELECT {COLUMNS} FROM log.erasures ORDER BY requested_at, user_id"  # noqa: S608
REQUEST: Final = "SELECT log.request_erasure(%s, %s, %s, %s, %s, %s, %s, %s) AS verdict"
NEWEST: Final = """
SELECT e.type, e.version, e.position, e.recorded_at, e.data->'record' AS record,
    (SELECT k.wrapped FROM log.user_keys k WHERE k.user_id = e.user_id) AS wrapped
FROM log.events e WHERE e.user_id = %s ORDER BY e.version DESC LIMIT 1
"""
NOTE_DELETION: Final = """
UPDATE log.erasures SET position = %s, deleted_at = %s WHERE user_id = %s AND deleted_at IS NULL
"""
ERASE: Final = "SELECT log.erase(%s, %s, %s) AS erased"
UNFINISHED: Final = """
SELECT user_id FROM log.erasures WHERE completed_at IS NULL AND erased_at IS NULL ORDER BY requested_at LIMIT %s
"""
TO_BURY: Final = """
SELECT x.position FROM log.erasures x
WHERE x.completed_at IS NULL AND x.erased_at IS NOT NULL AND x.buried_at IS NULL AND x.position <= %s
    AND NOT EXISTS (SELECT 1 FROM log.parked p WHERE p.user_id = x.user_id)
ORDER BY x.requested_at LIMIT %s
"""
BURIED: Final = """
UPDATE log.erasures SET buried_at = clock_timestamp() WHERE user_id = ANY (%s) AND buried_at IS NULL
"""
COMPLETE: Final = """
UPDATE log.erasures SET completed_at = clock_timestamp()
WHERE completed_at IS NULL AND buried_at IS NOT NULL AND erased_at <= clock_timestamp() - make_interval(secs => %s)
RETURNING user_id
"""
OPEN: Final = """
SELECT count(*) AS count, coalesce(extract(epoch FROM clock_timestamp() - min(requested_at)), 0)::float AS age
FROM log.erasures WHERE completed_at IS NULL
"""
# by index, and of positions that no look has gone past before
DUE: Final = """
SELECT e.user_id, e.position, EXISTS (SELECT 1 FROM log.erasures x WHERE x.user_id = e.user_id) AS known
FROM log.events e
WHERE e.type = 'UserDeleted' AND e.position > %s AND e.position <= log.position_at(now() - make_interval(secs => %s))
ORDER BY e.position LIMIT %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """An erasure as it stands; a step's time is None until it is done. `position` is that of the user's deletion."""

    user_id: UserId
    requested_at: datetime
    metadata: Metadata
    position: Position | None
    deleted_at: datetime | None
    erased_at: datetime | None
    removed: Mapping[str, int] | None
    buried_at: datetime | None
    completed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """What the log has of a user in the clear, whether or not their events can be opened."""

    deleted: bool
    version: int
    position: Position
    recorded_at: datetime
    record: Mapping[str, Any]
    wrapped: bytes | None

    @property
    def roles(self) -> Sequence[str]:
        return self.record.get("roles") or ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Users who were deleted long enough ago, `unknown` to this table; all others up to `through` are in it."""

    unknown: Sequence[UserId]
    through: Position


async def erasure_of(connection: Connection, user_id: UUID) -> Erasure | None:
    cursor = await connection.execute(OF_USER, (user_id,))
    row = await cursor.fetchone()
    return _erasure(row) if row is not None else None


async def listed(connection: Connection) -> list[Erasure]:
    """All of them, the oldest first."""
    return [_erasure(row) for row in await (await connection.execute(LISTED)).fetchall()]


async def request(
    connection: Connection,
    user_id: UUID,
    metadata: Metadata,
    *,
    requested_at: datetime | None = None,
    idempotency: Idempotency | None = None,
    ttl: int = 0,
) -> Requested:
    """Record that a user is to be erased, for good, with the request's idempotency key."""
    key: tuple[object, ...] = (None, None, None, None)
    if idempotency is not None:
        key = (idempotency.caller, idempotency.key, idempotency.digest, list(idempotency.former))
    stored = orjson.dumps(metadata.to_wire()).decode()
    cursor = await connection.execute(REQUEST, (user_id, stored, requested_at, *key, ttl))
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - a function's answer
    return row["verdict"]


async def newest_of(connection: Connection, user_id: UUID) -> Newest | None:
    cursor = await connection.execute(NEWEST, (user_id,))
    row = await cursor.fetchone()
    if row is None:
        return None
    return Newest(
        deleted=row["type"] == "UserDeleted",
        version=row["version"],
        position=Position(row["position"]),
        recorded_at=row["recorded_at"],
        record=row["record"] or {},
        wrapped=row["wrapped"],
    )


async def note_deletion(connection: Connection, user_id: UUID, newest: Newest) -> None:
    await connection.execute(NOTE_DELETION, (newest.position, newest.recorded_at, user_id))


async def erase(connection: Connection, user_id: UUID, *, accounts: Sequence[bytes], known: Mapping[str, Any]) -> bool:
    """Destroy the key and all that the database has beside it; False when that was done before.

    `accounts` are the keys that failed logins were counted by, `known` the personal values as far as they can be read.
    """
    cursor = await connection.execute(ERASE, (user_id, list(accounts), orjson.dumps(known).decode()))
    row = await cursor.fetchone()
    return row is not None and row["erased"]


async def unfinished(connection: Connection, limit: int) -> list[UserId]:
    """Those whose key is still there, the oldest request first."""
    cursor = await connection.execute(UNFINISHED, (limit,))
    return [UserId(row["user_id"]) for row in await cursor.fetchall()]


async def to_bury(connection: Connection, published: Position, limit: int) -> list[Position]:
    """The deletions, published already, that a tombstone is still to follow."""
    cursor = await connection.execute(TO_BURY, (published, limit), prepare=True)
    return [Position(row["position"]) for row in await cursor.fetchall()]


async def note_burial(connection: Connection, user_ids: Sequence[UUID]) -> None:
    await connection.execute(BURIED, (list(user_ids),))


async def complete(connection: Connection) -> list[UserId]:
    """Those that are done now: what processes remember is gone too."""
    cursor = await connection.execute(COMPLETE, (FORGOTTEN_WITHIN,))
    return [UserId(row["user_id"]) for row in await cursor.fetchall()]


async def still_open(connection: Connection) -> tuple[int, float]:
    """How many are not done, and the age of the oldest of these in seconds."""
    row = await (await connection.execute(OPEN)).fetchone() or {"count": 0, "age": 0.0}
    return row["count"], row["age"]


async def due(connection: Connection, after: Position, seconds: int, limit: int) -> Due:
    """Users whose deletion, after a position, was recorded so many seconds ago."""
    rows = await (await connection.execute(DUE, (after, seconds, limit))).fetchall()
    return Due(
        unknown=[UserId(row["user_id"]) for row in rows if not row["known"]],
        through=Position(rows[-1]["position"]) if rows else after,
    )


def _erasure(row: dict[str, Any]) -> Erasure:
    values: dict[str, Any] = row | {"metadata": Metadata.from_wire(row["metadata"])}
    return Erasure(**values)
