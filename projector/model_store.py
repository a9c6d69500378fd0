from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from psycopg import errors

from events.keyring import Keyring
from events.reader import events_after, head_position
from events.recording import Position, RecordedEvent
from runtime.database import Connection, Row, Session

APPLY = "SELECT user_id, held, got FROM read_model.apply(%s::json, %s::json, %s)"


class PartitionMoved(Exception):
    """Another process has applied this partition further: seek to where it stands now."""


class VersionsMissing(Exception):
    """The topic skips versions of users: it has lost events, which the log still has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A partition's move from one offset to the next, `position` being the last that is applied then."""

    partition: int
    from_offset: int
    next_offset: int
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    next_offset: int
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the relay has said of a partition: every event up to `position` is before `next_offset`."""

    next_offset: int
    position: Position


class ModelStore:
    """The read model's side of the database. Raises Unavailable and OutcomeUnknown when it is away."""

    def __init__(self, session: Session, keyring: Keyring, *, events_topic: str) -> None:
        self._session = session
        self._keyring = keyring
        self._topic = events_topic

    async def apply(self, rows: Sequence[Mapping[str, Any]], steps: Sequence[Step], *, strict: bool) -> None:
        """Rows and offsets in one transaction. Raises PartitionMoved and VersionsMissing: then nothing was applied."""
        parameters = (
            orjson.dumps(rows).decode(),
            orjson.dumps([asdict(step) for step in steps]).decode(),
            strict,
        )
        try:
            missing = await self._session.fetch(APPLY, parameters)
        except errors.SerializationFailure as error:
            raise PartitionMoved(error.diag.message_primary) from None
        if missing:
            found = ", ".join(f"{row['user_id']} has {row['held']}, got {row['got']}" for row in missing[:5])
            raise VersionsMissing(f"{len(missing)} users: {found}")

    async def progress(self, partitions: Iterable[int]) -> dict[int, Progress]:
        """Where the partitions stand; a partition that never moved is not in it."""
        rows = await self._session.fetch(
            "SELECT partition, next_offset, position FROM read_model.progress WHERE partition = ANY(%s)",
            (list(partitions),),
        )
        return {
            row["partition"]: Progress(next_offset=row["next_offset"], position=Position(row["position"]))
            for row in rows
        }

    async def begin(self, partitions: Iterable[int]) -> None:
        """Give partitions that never moved their row, standing before everything."""
        await self._session.fetch(
            "INSERT INTO read_model.progress (partition, next_offset, position)"
            " SELECT partition, -1, 0 FROM unnest(%s::int[]) AS partition ON CONFLICT DO NOTHING",
            (list(partitions),),
        )

    async def published(self) -> dict[int, Published]:
        rows = await self._session.fetch(
            "SELECT partition, next_offset, position FROM log.publication WHERE topic = %s", (self._topic,)
        )
        return {
            row["partition"]: Published(next_offset=row["next_offset"], position=Position(row["position"]))
            for row in rows
        }

    async def head(self) -> Position:
        return await self._session.use(head_position)

    async def holds(self, position: Position, event_id: object) -> bool:
        """Whether the log has this very event at this position."""
        found: list[Row] = await self._session.fetch("SELECT event_id FROM log.events WHERE position = %s", (position,))
        return bool(found) and found[0]["event_id"] == event_id

    async def events_after(self, position: Position, limit: int) -> list[RecordedEvent]:
        async def read(connection: Connection) -> list[RecordedEvent]:
            return await events_after(connection, self._keyring, position, limit=limit)

        return await self._session.use(read)
