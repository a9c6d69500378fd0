"""The log as people ask for it: a user's history, users as they were at a moment, and everything in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString, cast
from uuid import UUID

from events.histories import Entry, entry_of
from events.keyring import Keyring
from events.reader import CARRIED, COLUMNS
from events.recording import Position
from runtime.database import Connection, Row, Session

# how many positions one call looks through for what it is to find
EXAMINED: Final = 10_000

KEK_ID: Final = "(SELECT k.kek_id FROM log.user_keys k WHERE k.user_id = e.user_id) AS kek_id"
ENTRY: Final = f"{COLUMNS}, {KEK_ID}, NOT {CARRIED} AS discarded"
MOMENT: Final = "SELECT log.position_at(%s) AS position"
HEAD: Final = "SELECT position FROM log.head"
AT_POSITION: Final = f"""
SELECT {ENTRY} FROM log.events e WHERE e.user_id = %s AND e.position <= %s ORDER BY e.position DESC LIMIT 1
"""  # noqa: S608 - constants, as all below
AT_VERSION: Final = f"SELECT {ENTRY} FROM log.events e WHERE e.user_id = %s AND e.version = %s"  # noqa: S608
OLDEST_FIRST: Final = f"""
SELECT {ENTRY} FROM log.events e WHERE e.user_id = %s AND e.version > %s ORDER BY e.version LIMIT %s
"""  # noqa: S608
NEWEST_FIRST: Final = f"""
SELECT {ENTRY} FROM log.events e WHERE e.user_id = %s AND e.version < %s ORDER BY e.version DESC LIMIT %s
"""  # noqa: S608
FEED: Final = f"""
SELECT {ENTRY}, h.position AS head
FROM (SELECT position FROM log.head) h
LEFT JOIN LATERAL (
    SELECT * FROM log.events l
    WHERE l.position > %(after)s AND l.position <= least(h.position, %(end)s)
        AND (%(types)s::text[] IS NULL OR l.type = ANY(%(types)s))
        AND (%(actor)s::text IS NULL OR l.metadata->'actor'->>'subject' = %(actor)s)
        AND (%(correlation)s::text IS NULL OR l.metadata->>'correlation_id' = %(correlation)s)
    ORDER BY l.position LIMIT %(limit)s
) e ON true
ORDER BY e.position
"""  # noqa: S608
FEED_OF_USER: Final = FEED.replace("WHERE l.position", "WHERE l.user_id = %(user_id)s AND l.position")
# Users in the order in which they were created, each as of a position; of those who are not wanted, nothing but their
# place. What is sealed cannot be judged here.
AS_OF_UPWARDS: Final = f"""
SELECT c.position AS created, {ENTRY}
FROM (
    SELECT l.user_id, l.position FROM log.events l
    WHERE l.version = 1 AND l.position > %(after)s AND l.position <= %(position)s ORDER BY l.position LIMIT %(limit)s
) c
LEFT JOIN LATERAL (
    SELECT n.* FROM (
        SELECT * FROM log.events l WHERE l.user_id = c.user_id AND l.position <= %(position)s
        ORDER BY l.position DESC LIMIT 1
    ) n
    WHERE n.data->'record'->>'deleted_at' IS NULL
        AND (%(status)s::text IS NULL OR n.data->'record'->>'status' = %(status)s)
        AND (%(role)s::text IS NULL OR n.data->'record'->'roles' ? %(role)s)
) e ON true
ORDER BY c.position
"""  # noqa: S608
AS_OF_DOWNWARDS: Final = (
    AS_OF_UPWARDS.replace("l.position > %(after)s", "l.position < %(after)s")
    .replace("ORDER BY l.position LIMIT", "ORDER BY l.position DESC LIMIT")
    .replace("ORDER BY c.position", "ORDER BY c.position DESC")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events of the feed are wanted: None wants any."""

    types: Sequence[str] | None = None
    actor: str | None = None
    correlation: str | None = None
    user_id: UUID | None = None

    def takes(self, entry: Entry) -> bool:
        """The same as the query, for events that were read already."""
        actor: object = entry.metadata.get("actor")
        subject = cast("Mapping[str, object]", actor).get("subject") if isinstance(actor, dict) else None
        return (
            (self.types is None or entry.type_name in self.types)
            and (self.user_id is None or entry.user_id == self.user_id)
            and (self.actor is None or subject == self.actor)
            and (self.correlation is None or entry.metadata.get("correlation_id") == self.correlation)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What was found, in order; nothing else that is wanted is at a position up to `through`. `head` ends the log."""

    entries: Sequence[Entry]
    through: Position
    head: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Then:
    """A user as of a position, in the order of creation: `created` is the position of that.

    `entry` is None for one who was deleted then, or is not wanted.
    """

    created: Position
    entry: Entry | None


class Archive:
    """Reads the log for people, on a connection of its own. Raises Unavailable, and WrongKey."""

    def __init__(self, session: Session, keyring: Keyring) -> None:
        self._session = session
        self._keyring = keyring

    async def head(self) -> Position:
        rows = await self._rows(HEAD, ())
        return Position(rows[0]["position"] if rows else 0)

    async def position_at(self, moment: datetime) -> Position:
        """The last position that was recorded up to an aware moment; 0 before the first."""
        rows = await self._rows(MOMENT, (moment,))
        return Position(rows[0]["position"])

    async def as_of(self, user_id: UUID, position: Position) -> Entry | None:
        """The user's newest event up to a position, which carries the record as it was then."""
        return self._one(await self._rows(AT_POSITION, (user_id, position)))

    async def at_version(self, user_id: UUID, version: int) -> Entry | None:
        return self._one(await self._rows(AT_VERSION, (user_id, version)))

    async def history(self, user_id: UUID, *, beyond: int, newest_first: bool, limit: int) -> list[Entry]:
        """The user's events after a version, or before it, as they come."""
        query = NEWEST_FIRST if newest_first else OLDEST_FIRST
        return self._entries(await self._rows(query, (user_id, beyond, limit)))

    async def feed(self, wanted: Wanted, *, after: Position, until: Position | None, limit: int) -> Feed:
        """The next events that are wanted, up to `limit` of them and `until` if that is given.

        Without a user, it looks at EXAMINED positions at most, so that rare events cost no more than frequent ones.
        """
        end = until if until is not None else Position(2**63 - 1)
        if wanted.user_id is None:
            end = Position(min(end, after + EXAMINED))
        rows = await self._rows(
            FEED if wanted.user_id is None else FEED_OF_USER,
            {
                "after": after,
                "end": end,
                "limit": limit,
                "types": list(wanted.types) if wanted.types is not None else None,
                "actor": wanted.actor,
                "correlation": wanted.correlation,
                "user_id": wanted.user_id,
            },
        )
        head = Position(rows[0]["head"])
        entries = self._entries([row for row in rows if row["position"] is not None])
        through = entries[-1].position if len(entries) == limit else Position(max(after, min(end, head)))
        return Feed(entries=entries, through=through, head=head)

    async def users_then(
        self,
        position: Position,
        *,
        beyond: Position,
        newest_first: bool,
        status: str | None,
        role: str | None,
        limit: int,
    ) -> list[Then]:
        """The next users who were created after, or before, the position `beyond`, as they were at `position`."""
        rows = await self._rows(
            AS_OF_DOWNWARDS if newest_first else AS_OF_UPWARDS,
            {"position": position, "after": beyond, "limit": limit, "status": status, "role": role},
        )
        return [
            Then(
                created=Position(row["created"]),
                entry=entry_of(row, self._keyring) if row["position"] is not None else None,
            )
            for row in rows
        ]

    def _one(self, rows: Sequence[Row]) -> Entry | None:
        return entry_of(rows[0], self._keyring) if rows else None

    def _entries(self, rows: Sequence[Row]) -> list[Entry]:
        return [entry_of(row, self._keyring) for row in rows]

    async def _rows(self, query: LiteralString, parameters: Sequence[object] | Mapping[str, object]) -> list[Row]:
        async def run(connection: Connection) -> list[Row]:
            # a plan that was made while the log was small would be kept
            return await (await connection.execute(query, parameters, prepare=False)).fetchall()

        return await self._session.use(run)
