from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from events.keyring import Keyring, WrongKey
from events.recording import Position, RecordedEvent, event_of
from events.sealing import BrokenSeal
from events.user import UserId
from runtime.batching import Batcher
from runtime.database import Connection, Session

# The key as a subquery and look-ups as LATERAL: each is an index look-up whatever the planner believes of a table that
# has just grown. As joins, some became scans of the whole table.
COLUMNS: Final = (
    "e.position, e.user_id, e.version, e.type, e.schema, e.event_id, e.data, e.sealed, e.metadata, e.recorded_at,"
    " (SELECT k.wrapped FROM log.user_keys k WHERE k.user_id = e.user_id) AS wrapped"
)
NEWEST = f"""
SELECT {COLUMNS}
FROM unnest(%s::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT * FROM log.events l WHERE l.user_id = wanted.id ORDER BY l.version DESC LIMIT 1
) e
"""  # noqa: S608 - constants
AT = f"SELECT {COLUMNS} FROM log.events e WHERE e.position = %s"  # noqa: S608 - constants
AFTER = f"SELECT {COLUMNS} FROM log.events e WHERE e.position > %s ORDER BY e.position LIMIT %s"  # noqa: S608 - constants
REMEMBERED = """
SELECT asked.ordinal, found.digest, found.position, found.changed
FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS asked (caller, key, ordinal)
CROSS JOIN LATERAL (
    SELECT * FROM log.commands k
    WHERE k.caller = asked.caller AND k.key = asked.key AND k.expires_at > now() LIMIT 1
) found
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A user's newest event: its record is the user's state."""

    recorded: RecordedEvent
    wrapped: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """An idempotency key that was answered: `digest` of the request, `position` that the answer stands for."""

    digest: bytes
    position: Position
    changed: bool


class Reader:
    """Reads the log for commands; loads that wait at the same moment become one query.

    Raises Unavailable and Overloaded, and BrokenSeal or WrongKey for an event that cannot be opened.
    """

    def __init__(self, session: Session, keyring: Keyring, *, timeout: float, queue_limit: int) -> None:
        self._session = session
        self._keyring = keyring
        self._newest: Batcher[UserId, Loaded | None] = Batcher(
            self._load, limit=256, queue_limit=queue_limit, timeout=timeout
        )
        self._commands: Batcher[tuple[str, str], Remembered | None] = Batcher(
            self._recall, limit=256, queue_limit=queue_limit, timeout=timeout
        )

    async def load(self, user_id: UserId, *, timeout: float | None = None) -> Loaded | None:
        """The user's newest event, or None for an unknown user: one index lookup however long the history."""
        return await self._newest.submit(user_id, timeout=timeout)

    async def recall(self, caller: str, key: str, *, timeout: float | None = None) -> Remembered | None:
        """What was answered to this idempotency key, if it has not expired."""
        return await self._commands.submit((caller, key), timeout=timeout)

    async def at(self, position: Position) -> Loaded | None:
        rows = await self._session.fetch(AT, (position,))
        return Loaded(recorded=event_of(rows[0], self._keyring), wrapped=rows[0]["wrapped"]) if rows else None

    async def close(self) -> None:
        await self._newest.close()
        await self._commands.close()

    async def _load(self, user_ids: Sequence[UserId]) -> list[Loaded | Exception | None]:
        rows = await self._session.fetch(NEWEST, (list(set(user_ids)),))
        loaded: dict[UUID, Loaded | Exception] = {}
        for row in rows:
            try:
                loaded[row["user_id"]] = Loaded(recorded=event_of(row, self._keyring), wrapped=row["wrapped"])
            except (BrokenSeal, WrongKey) as error:
                # one user's trouble, not their neighbours'
                loaded[row["user_id"]] = error
        return [loaded.get(user_id) for user_id in user_ids]

    async def _recall(self, asked: Sequence[tuple[str, str]]) -> list[Remembered | Exception | None]:
        rows = await self._session.fetch(REMEMBERED, ([caller for caller, _ in asked], [key for _, key in asked]))
        found = {
            row["ordinal"]: Remembered(digest=row["digest"], position=Position(row["position"]), changed=row["changed"])
            for row in rows
        }
        return [found.get(ordinal) for ordinal in range(1, len(asked) + 1)]


async def events_after(
    connection: Connection, keyring: Keyring, position: Position, *, limit: int
) -> list[RecordedEvent]:
    """The next events of the log after `position`, in order; no event before the last of them can still appear."""
    cursor = await connection.execute(AFTER, (position, limit), prepare=True)
    return [event_of(row, keyring) for row in await cursor.fetchall()]


async def head_position(connection: Connection) -> Position:
    cursor = await connection.execute("SELECT position FROM log.head", prepare=True)
    row = await cursor.fetchone()
    return Position(row["position"] if row else 0)
