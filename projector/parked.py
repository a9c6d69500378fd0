"""What is parked, as operators look at it: held back from the read model, from the topics, or from both."""

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from runtime.database import Connection

ALL: Final = """
SELECT 'read model' AS held_back_from, p.id, p.user_id, p.source, p.partition, p.topic_offset, p.position, p.version,
    p.event_id, p.reason, p.parked_at, p.tries, p.tried_at, w.waiting
FROM read_model.parked p
CROSS JOIN LATERAL (
    SELECT count(*) AS waiting FROM log.events e WHERE e.user_id = p.user_id AND e.version >= p.version
) w
WHERE p.build IS NULL
UNION ALL
SELECT 'topics', NULL, p.user_id, 'log', NULL, NULL, p.position, p.version,
    p.event_id, p.reason, p.parked_at, p.tries, p.tried_at, w.waiting
FROM log.parked p
CROSS JOIN LATERAL (
    SELECT count(*) AS waiting FROM log.events e WHERE e.user_id = p.user_id AND e.version >= p.version
) w
ORDER BY parked_at, held_back_from
"""
RECORD: Final = "SELECT record_key, record_headers, record_value FROM read_model.parked WHERE id = %s"
WAITING: Final = """
SELECT e.position, e.version, e.type, e.recorded_at,
    EXISTS (SELECT 1 FROM log.discarded d WHERE d.position = e.position) AS discarded
FROM log.events e WHERE e.user_id = %s AND e.version >= %s ORDER BY e.version LIMIT %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """`id` numbers what is held back from the read model. Without a user, a record of the topic that holds nobody back.

    `waiting`: the user's events from `version` on, the one that cannot be carried on included.
    """

    held_back_from: Literal["read model", "topics"]
    id: int | None
    user_id: UUID | None
    source: Literal["log", "topic"]
    partition: int | None
    topic_offset: int | None
    position: int | None
    version: int | None
    event_id: UUID | None
    reason: str
    parked_at: datetime
    tries: int
    tried_at: datetime | None
    waiting: int


async def all_parked(connection: Connection) -> list[Parked]:
    """Everything that is parked, the longest first."""
    cursor = await connection.execute(ALL)
    return [Parked(**row) for row in await cursor.fetchall()]


async def record_of_topic(connection: Connection, number: int) -> dict[str, str | None]:
    """What the topic held, of something parked that came from there: its key, its value, and `header NAME` for each."""
    cursor = await connection.execute(RECORD, (number,))
    row = await cursor.fetchone()
    if row is None:
        return {}
    headers: list[tuple[str, str]] = row["record_headers"] or []
    value: bytes | None = row["record_value"]
    return {
        "key": row["record_key"],
        **{f"header {name}": _decoded(base64.b64decode(encoded)) for name, encoded in headers},
        "value": None if value is None else _decoded(value),
    }


async def waiting_events(connection: Connection, user_id: UUID, version: int, limit: int) -> list[dict[str, Any]]:
    """The user's events that are held back, in order."""
    cursor = await connection.execute(WAITING, (user_id, version, limit))
    return await cursor.fetchall()


def _decoded(value: bytes) -> str:
    return value.decode(errors="backslashreplace")
