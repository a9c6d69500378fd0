"""The log user by user, for whoever checks it: events as they stand there, whether or not they can be opened."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast
from uuid import UUID

from events.keyring import Keyring, WrongKey
from events.reader import CARRIED
from events.recording import WRAPPED, Position, RecordedEvent, event_of
from events.sealing import BrokenSeal
from runtime.database import Connection, Row

FETCHED_AT_ONCE: Final = 2000
FIRST_ID, LAST_ID = UUID(int=0), UUID(int=2**128 - 1)

ENTRY: Final = f"""
SELECT e.position, e.user_id, e.version, e.type, e.schema, e.event_id, e.data, e.sealed, e.metadata, e.recorded_at,
    {WRAPPED} AS wrapped, k.kek_id, NOT {CARRIED} AS discarded
FROM log.events e LEFT JOIN log.user_keys k ON k.user_id = e.user_id
"""  # noqa: S608 - constants
IN_RANGE: Final = f"{ENTRY} WHERE e.user_id BETWEEN %s AND %s ORDER BY e.user_id, e.version"
AT: Final = f"{ENTRY} WHERE e.position = ANY(%s)"
AFTER_VERSION: Final = f"{ENTRY} WHERE e.user_id = %s AND e.version > %s ORDER BY e.version LIMIT 1"
LAST_TO_CHANGE: Final = f"""
{ENTRY} WHERE e.user_id = %s AND e.version <= %s AND e.data->'changed' ?| %s ORDER BY e.version DESC LIMIT 1
"""
NTH_KEY: Final = "SELECT user_id FROM log.user_keys WHERE user_id >= %s ORDER BY user_id OFFSET %s LIMIT 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event of the log.

    `recorded` is None when it cannot be opened, for `reason`, which says nothing personal. `discarded`: an operator
    gave it up, and whatever carries the log on passes it over.
    """

    position: Position
    user_id: UUID
    version: int
    event_id: UUID
    type_name: str
    recorded_at: datetime
    metadata: Mapping[str, Any]
    discarded: bool
    recorded: RecordedEvent | None
    reason: str | None = None

    @property
    def erased(self) -> bool:
        """Whether its personal values are gone because the user was erased."""
        return self.recorded is not None and self.recorded.event.user.erased


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRange:
    """The users whose ids are from `first` to `last`, both included; about `users` of them."""

    first: UUID
    last: UUID
    users: int


async def key_ranges(connection: Connection, size: int) -> AsyncIterator[KeyRange]:
    """All ids there can be, in ranges of `size` users each: nothing falls between two."""
    first = FIRST_ID
    while True:
        cursor = await connection.execute(NTH_KEY, (first, size - 1), prepare=True)
        row = await cursor.fetchone()
        if row is None or row["user_id"] == LAST_ID:
            yield KeyRange(first=first, last=LAST_ID, users=size)
            return
        yield KeyRange(first=first, last=row["user_id"], users=size)
        first = UUID(int=row["user_id"].int + 1)


@asynccontextmanager
async def entries_in(connection: Connection, keyring: Keyring, keys: KeyRange) -> AsyncGenerator[AsyncIterator[Entry]]:
    """The events of a range's users, one user's after another's, in order of version. Raises WrongKey.

    They are fetched as they are taken, within the caller's transaction.
    """
    async with connection.cursor(name="entries") as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        await cursor.execute(IN_RANGE, (keys.first, keys.last))
        yield (entry_of(row, keyring) async for row in cursor)


async def entries_at(connection: Connection, keyring: Keyring, positions: Sequence[Position]) -> dict[Position, Entry]:
    """The events at these positions; what the log does not have is not among them. Raises WrongKey."""
    cursor = await connection.execute(AT, (list(positions),), prepare=True)
    return {Position(row["position"]): entry_of(row, keyring) for row in await cursor.fetchall()}


async def entry_after(connection: Connection, keyring: Keyring, user_id: UUID, version: int) -> Entry | None:
    """The user's first event after a version."""
    cursor = await connection.execute(AFTER_VERSION, (user_id, version))
    row = await cursor.fetchone()
    return entry_of(row, keyring) if row is not None else None


async def last_to_change(
    connection: Connection, keyring: Keyring, user_id: UUID, version: int, fields: Sequence[str]
) -> Entry | None:
    """The user's last event up to a version that changed one of these fields."""
    cursor = await connection.execute(LAST_TO_CHANGE, (user_id, version, list(fields)))
    row = await cursor.fetchone()
    return entry_of(row, keyring) if row is not None else None


def entry_of(row: Row, keyring: Keyring) -> Entry:
    """An entry of a row of ENTRY's columns. Raises WrongKey."""
    recorded, reason = None, None
    try:
        recorded = event_of(row, keyring)
    except BrokenSeal as error:
        reason = str(error)
    except WrongKey:
        # a key that this deployment never wrapped says nothing against the event: no event could be opened
        if not keyring.knows(row["kek_id"]):
            raise
        reason = "the user's data key was altered"
    return Entry(
        position=Position(row["position"]),
        user_id=row["user_id"],
        version=row["version"],
        event_id=row["event_id"],
        type_name=row["type"],
        recorded_at=row["recorded_at"],
        metadata=cast("Mapping[str, Any]", row["metadata"]) if isinstance(row["metadata"], dict) else {},
        discarded=row["discarded"],
        recorded=recorded,
        reason=reason,
    )
