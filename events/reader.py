from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from events.keyring import Keyring, WrongKey
from events.recording import WRAPPED, Position, RecordedEvent, event_of, record_of, user_of
from events.sealing import BrokenSeal
from events.user import User, UserId
from runtime.batching import Batcher
from runtime.database import Connection, Row, Session

Found = TypeVar("Found")

# The key as a subquery and look-ups as LATERAL: each is an index look-up whatever the planner believes of a table that
# has just grown. As joins, some became scans of the whole table.
COLUMNS: Final = (
    "e.position, e.user_id, e.version, e.type, e.schema, e.event_id, e.data, e.sealed, e.metadata, e.recorded_at,"  # noqa: S608 - a constant
    f" (SELECT {WRAPPED} FROM log.user_keys k WHERE k.user_id = e.user_id) AS wrapped"
)
NEWEST = f"""
SELECT {COLUMNS}
FROM unnest(%s::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT * FROM log.events l WHERE l.user_id = wanted.id ORDER BY l.version DESC LIMIT 1
) e
"""  # noqa: S608 - constants
AT = f"SELECT {COLUMNS} FROM log.events e WHERE e.position = %s"  # noqa: S608 - constants
# what an operator gave up is passed over by whatever carries the log on
CARRIED = "NOT EXISTS (SELECT 1 FROM log.discarded d WHERE d.position = e.position)"
AFTER = f"""
SELECT {COLUMNS}, {CARRIED} AS carried FROM log.events e WHERE e.position > %s ORDER BY e.position LIMIT %s
"""  # noqa: S608 - constants
OF_USER = f"""
SELECT {COLUMNS} FROM log.events e WHERE e.user_id = %s AND e.version >= %s AND {CARRIED} ORDER BY e.version LIMIT %s
"""  # noqa: S608 - constants
NEWEST_BEFORE = f"""
SELECT {COLUMNS} FROM log.events e WHERE e.user_id = %s AND e.version < %s AND {CARRIED} ORDER BY e.version DESC LIMIT 1
"""  # noqa: S608 - constants
WRAPPED_BY = "SELECT kek_id FROM log.user_keys WHERE user_id = %s AND wrapped = %s"
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
    """A user's state, and the position of the event that left it so; `wrapped` is their data key."""

    user: User
    position: Position
    wrapped: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """An idempotency key that was answered: `digest` of the request, `position` that the answer stands for."""

    digest: bytes
    position: Position
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRecord:
    """A user's record after an event of the log, as it is on the wire."""

    position: Position
    user_id: UserId
    version: int
    event_id: UUID
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """An event of the log that cannot be opened, for a reason of its own; `reason` says nothing personal."""

    position: Position
    user_id: UserId
    version: int
    event_id: UUID
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch(Generic[Found]):
    """What was found in a stretch of the log, in order, up to the position `end`; None: the log ends before it.

    What an operator discarded is not among it.
    """

    found: Sequence[Found | Unreadable]
    end: Position | None


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
        """The user's state by their newest event, or None for an unknown one: one look-up however long the history."""
        return await self._newest.submit(user_id, timeout=timeout)

    async def recall(self, caller: str, key: str, *, timeout: float | None = None) -> Remembered | None:
        """What was answered to this idempotency key, if it has not expired."""
        return await self._commands.submit((caller, key), timeout=timeout)

    async def at(self, position: Position) -> RecordedEvent | None:
        rows = await self._session.fetch(AT, (position,))
        return event_of(rows[0], self._keyring) if rows else None

    async def close(self) -> None:
        await self._newest.close()
        await self._commands.close()

    async def _load(self, user_ids: Sequence[UserId]) -> list[Loaded | Exception | None]:
        rows = await self._session.fetch(NEWEST, (list(set(user_ids)),))
        loaded: dict[UUID, Loaded | Exception] = {}
        for row in rows:
            try:
                user = user_of(row, self._keyring)
                loaded[user.id] = Loaded(user=user, position=Position(row["position"]), wrapped=row["wrapped"])
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
) -> Stretch[RecordedEvent]:
    """The next `limit` events after `position`; no event before the end of them can still appear. Raises WrongKey."""
    return await _stretch(connection, keyring, (position, limit), event_of)


async def records_after(
    connection: Connection,
    keyring: Keyring,
    position: Position,
    *,
    limit: int,
    wanted: Callable[[UUID], bool],
) -> Stretch[LoggedRecord]:
    """As `events_after`, for the users that are wanted, and only what rows of the read model are made of."""
    return await _stretch(connection, keyring, (position, limit), _logged, wanted)


async def _stretch(
    connection: Connection,
    keyring: Keyring,
    parameters: tuple[Position, int],
    read: Callable[[Row, Keyring], Found],
    wanted: Callable[[UUID], bool] = lambda _: True,
) -> Stretch[Found]:
    cursor = await connection.execute(AFTER, parameters, prepare=True)
    rows = await cursor.fetchall()
    return Stretch(
        found=[
            await _read(connection, keyring, row, read) for row in rows if row["carried"] and wanted(row["user_id"])
        ],
        end=Position(rows[-1]["position"]) if rows else None,
    )


async def records_of(
    connection: Connection, keyring: Keyring, user_id: UUID, *, from_version: int, limit: int
) -> list[LoggedRecord | Unreadable]:
    """A user's events from a version on, in order, as `records_after` has them."""
    cursor = await connection.execute(OF_USER, (user_id, from_version, limit), prepare=True)
    return [await _read(connection, keyring, row, _logged) for row in await cursor.fetchall()]


async def newest_before(
    connection: Connection, keyring: Keyring, user_id: UUID, version: int
) -> LoggedRecord | Unreadable | None:
    """A user's newest event before a version, as `records_after` has it; None when there is none."""
    cursor = await connection.execute(NEWEST_BEFORE, (user_id, version), prepare=True)
    row = await cursor.fetchone()
    return None if row is None else await _read(connection, keyring, row, _logged)


async def events_of(
    connection: Connection, keyring: Keyring, user_id: UUID, *, from_version: int, limit: int
) -> list[RecordedEvent | Unreadable]:
    """A user's events from a version on, in order, as `events_after` has them."""
    cursor = await connection.execute(OF_USER, (user_id, from_version, limit), prepare=True)
    return [await _read(connection, keyring, row, event_of) for row in await cursor.fetchall()]


def _logged(row: Row, keyring: Keyring) -> LoggedRecord:
    return LoggedRecord(
        position=Position(row["position"]),
        user_id=UserId(row["user_id"]),
        version=row["version"],
        event_id=row["event_id"],
        record=record_of(row, keyring),
    )


async def _read(
    connection: Connection, keyring: Keyring, row: Row, read: Callable[[Row, Keyring], Found]
) -> Found | Unreadable:
    try:
        return read(row, keyring)
    except BrokenSeal as error:
        reason = str(error)
    except WrongKey:
        # a key that this deployment never wrapped says nothing against the event: no event could be opened
        if not await _known(connection, keyring, row):
            raise
        reason = "the user's data key was altered"
    return Unreadable(
        position=Position(row["position"]),
        user_id=UserId(row["user_id"]),
        version=row["version"],
        event_id=row["event_id"],
        reason=reason,
    )


async def _known(connection: Connection, keyring: Keyring, row: Row) -> bool:
    """Whether a KEK that is known here wrapped the key; raises WrongKey, which names it, when another did."""
    # as it was read: a rotation may have wrapped it anew meanwhile
    cursor = await connection.execute(WRAPPED_BY, (row["user_id"], row["wrapped"]))
    found = await cursor.fetchone()
    if found is not None and not keyring.knows(found["kek_id"]):
        raise WrongKey(keyring.kek.lack([found["kek_id"]]))
    return found is not None


async def head_position(connection: Connection) -> Position:
    cursor = await connection.execute("SELECT position FROM log.head", prepare=True)
    row = await cursor.fetchone()
    return Position(row["position"] if row else 0)
