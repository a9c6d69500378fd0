"""Users whose newest event is not theirs to show: their row is that of the newest event before it that can be."""

from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from events.keyring import Keyring
from events.partitioning import partition_of
from events.reader import LoggedRecord, Unreadable, newest_before
from projector.parking import Park
from projector.rows import NoRow, Row, row_of
from runtime.database import Connection

NEWEST: Final = 2**31 - 1

# gives None, or why the table does not take the row
Take = Callable[[Row], Awaitable[str | None]]


async def newest_shown(
    connection: Connection, keyring: Keyring, user_id: UUID, before: int, *, partitions: int, take: Take
) -> Park | None:
    """Give the table the newest row before a version that it takes; what it does not take is parked, from there on.

    Raises WrongKey.
    """
    park: Park | None = None
    while (found := await newest_before(connection, keyring, user_id, before)) is not None:
        reason = await _taken(found, take)
        if reason is None:
            break
        park = park_of(user_id, found.version, found.position, reason, partitions=partitions)
        before = found.version
    return park


def park_of(user_id: UUID, version: int, position: int, reason: str, *, partitions: int) -> Park:
    """A user who is held back from an event of the log on."""
    return {
        "user_id": str(user_id),
        "source": "log",
        "partition": partition_of(user_id, partitions),
        "version": version,
        "position": position,
        "reason": reason,
    }


async def _taken(found: LoggedRecord | Unreadable, take: Take) -> str | None:
    if isinstance(found, Unreadable):
        return found.reason
    try:
        row = row_of(found.record, found.position)
    except NoRow as error:
        return str(error)
    return await take(row)
