"""Users of whom the relay cannot publish an event: from that version on, none of theirs goes to the topics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prometheus_client import Gauge

from events.outgoing import Outgoing
from events.reader import Unreadable
from events.recording import Position, RecordedEvent
from runtime.database import Connection
from runtime.failpoints import failpoint
from runtime.logs import logger

PARKED = Gauge("muster_relay_parked", "Users of whom an event cannot be published")

PARK: Final = """
INSERT INTO log.parked (user_id, version, position, event_id, reason)
SELECT * FROM unnest(%s::uuid[], %s::int[], %s::bigint[], %s::uuid[], %s::text[])
ON CONFLICT (user_id) DO NOTHING
"""
PARK_AGAIN: Final = """
UPDATE log.parked SET version = %s, position = %s, event_id = %s, reason = %s, retry = false, tries = tries + 1,
    tried_at = now()
WHERE user_id = %s
"""

log = logger(__name__)


class TooManyParked(Exception):
    """More is to be set aside than single events' own faults explain."""

    def __init__(self, parked: int, limit: int, newest: object) -> None:
        super().__init__(
            f"{parked} events are to be set aside, more than PARKED_LIMIT ({limit}): this looks like a fault of this"
            f" version or its settings, not of the events. None of the newest was; one of them: {newest}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedUser:
    """`version` is the first that is not in the topics, `retry` what an operator asked for."""

    user_id: UUID
    version: int
    retry: bool


class ParkedUsers:
    """Those of log.parked, for the relay that leads: nobody else parks or releases anyone."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._users: dict[UUID, ParkedUser] = {}

    def __len__(self) -> int:
        return len(self._users)

    def to_retry(self) -> list[ParkedUser]:
        return [user for user in self._users.values() if user.retry]

    async def look(self, connection: Connection) -> None:
        """Read them anew, with what operators ask for."""
        cursor = await connection.execute("SELECT user_id, version, retry FROM log.parked", prepare=True)
        self._users = {row["user_id"]: ParkedUser(**row) for row in await cursor.fetchall()}
        PARKED.set(len(self._users))

    async def hold_back(self, connection: Connection, found: Sequence[Outgoing | Unreadable]) -> list[Outgoing]:
        """Park whoever has an event that cannot be opened; gives what can be published. Raises TooManyParked."""
        held = {user_id: user.version for user_id, user in self._users.items()}
        publishable: list[Outgoing] = []
        unreadable: list[Unreadable] = []
        for one in found:
            if one.version >= held.get(one.user_id, one.version + 1):
                continue
            if isinstance(one, Unreadable):
                held[one.user_id] = one.version
                unreadable.append(one)
            else:
                publishable.append(one)
        if unreadable:
            await self._park(connection, unreadable)
        return publishable

    async def keep(self, connection: Connection, stopper: Unreadable) -> None:
        """After a retry: the user stays parked, from where that came to."""
        await connection.execute(
            PARK_AGAIN, (stopper.version, stopper.position, stopper.event_id, stopper.reason, stopper.user_id)
        )

    async def release(self, connection: Connection, user: ParkedUser) -> None:
        await connection.execute("DELETE FROM log.parked WHERE user_id = %s", (user.user_id,))

    async def _park(self, connection: Connection, found: Sequence[Unreadable]) -> None:
        parked = len(self._users) + len(found)
        if parked > self._limit:
            raise TooManyParked(parked, self._limit, f"position {found[0].position}: {found[0].reason}")
        async with connection.transaction():
            # durably: what is published after this must not make the next relay pass over them
            await connection.execute("SET LOCAL synchronous_commit = on")
            await connection.execute(
                PARK,
                (
                    [one.user_id for one in found],
                    [one.version for one in found],
                    [one.position for one in found],
                    [one.event_id for one in found],
                    [one.reason for one in found],
                ),
            )
        failpoint("relay.parked")
        for one in found:
            log.error("parked", user_id=str(one.user_id), position=one.position, reason=one.reason)
        await self.look(connection)


def stretch_before(
    found: Sequence[RecordedEvent | Unreadable], end: Position
) -> tuple[list[RecordedEvent], Unreadable | None]:
    """The events up to `end` that can be published before one that cannot, and that one."""
    publishable: list[RecordedEvent] = []
    for one in found:
        if one.position > end:
            break
        if isinstance(one, Unreadable):
            return publishable, one
        publishable.append(one)
    return publishable, None
