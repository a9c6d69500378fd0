import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final
from uuid import UUID

import orjson
import psycopg

from events.keyring import Keyring
from events.parked import TooManyParked
from events.partitioning import check_partitions, partition_of
from events.reader import LoggedRecord, Stretch, Unreadable, head_position, records_after, records_of
from events.recording import Position
from projector.parking import Park, park_row
from projector.read_model import SHAPE
from projector.rows import Row, folded
from projector.sifting import REFUSALS, sift
from runtime.database import Connection, Session
from runtime.database import Row as DatabaseRow
from runtime.failpoints import failpoint

PROJECT: Final = "SELECT user_id, held, got FROM read_model.project(%s::json, %s::json, %s, %s)"
PARK: Final = "SELECT read_model.park(%s::json, NULL)"
HEAD_AND_EVENT: Final = """
SELECT h.position AS head, e.event_id FROM log.head h LEFT JOIN log.events e ON e.position = %s
"""
HELD_BACK: Final = "SELECT count(*) AS held_back FROM read_model.parked WHERE user_id IS NOT NULL AND build IS NULL"


class PartitionMoved(Exception):
    """Another process has applied this partition further: seek to where it stands now."""


class VersionsMissing(Exception):
    """The topic skips versions of users: it has lost events, which the log still has.

    `held`: the version that the model has, of each of these users.
    """

    def __init__(self, held: Mapping[UUID, int]) -> None:
        some = ", ".join(f"{user_id} after {version}" for user_id, version in list(held.items())[:5])
        super().__init__(f"{len(held)} users: {some}")
        self.held = held


class NewerShape(Exception):
    """The read model was rebuilt with a newer shape than this process knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A partition's move from one offset to the next, `position` being the last that is applied then.

    `epoch` is that of the offsets, when it changes.
    """

    partition: int
    from_offset: int
    next_offset: int
    position: Position
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    next_offset: int
    position: Position
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the relay has said of a partition: every event up to `position` is before `next_offset`."""

    next_offset: int
    position: Position
    epoch: int


class ModelStore:
    """The read model's side of the database. Raises Unavailable and OutcomeUnknown when it is away.

    `writing`: as many batches are applied at once. `reading` is for the log, which is read while the model is written.
    """

    def __init__(
        self,
        writing: Sequence[Session],
        reading: Session,
        keyring: Keyring,
        *,
        events_topic: str,
        partitions: int,
        parked_limit: int,
    ) -> None:
        self._session = writing[0]
        # the one that was used last is used next: the others connect when they are needed
        self._free: asyncio.LifoQueue[Session] = asyncio.LifoQueue()
        for session in reversed(writing):
            self._free.put_nowait(session)
        self._reading = reading
        self._keyring = keyring
        self._topic = events_topic
        self._partitions = partitions
        self._parked_limit = parked_limit

    async def project(
        self, rows: Sequence[Row], steps: Sequence[Step], *, parks: Sequence[Park] = (), strict: bool
    ) -> Sequence[Park]:
        """Apply rows (one an event, a user's in order), park and move on, in one transaction; gives what is parked.

        A row that the table does not take is parked with its user's later ones; whatever the database says of itself
        parks nothing. Raises PartitionMoved, VersionsMissing, NewerShape and TooManyParked: then nothing was done.
        """
        session = await self._free.get()
        try:
            if not parks:
                try:
                    _raise_missing(await session.fetch(PROJECT, _projection(folded(rows), steps, strict=strict)))
                except REFUSALS:
                    pass
                else:
                    return []
            return await session.use(lambda connection: self._sift(connection, rows, steps, parks))
        except psycopg.DatabaseError as error:
            raise _translated(error) from None
        finally:
            self._free.put_nowait(session)

    async def progress(self, partitions: Iterable[int]) -> dict[int, Progress]:
        """Where the partitions stand; a partition that never moved is not in it."""
        rows = await self._session.fetch(
            "SELECT partition, next_offset, position, epoch FROM read_model.progress WHERE partition = ANY(%s)",
            (list(partitions),),
        )
        return {
            row["partition"]: Progress(
                next_offset=row["next_offset"], position=Position(row["position"]), epoch=row["epoch"]
            )
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
            "SELECT partition, next_offset, position, epoch FROM log.publication WHERE topic = %s", (self._topic,)
        )
        return {
            row["partition"]: Published(
                next_offset=row["next_offset"], position=Position(row["position"]), epoch=row["epoch"]
            )
            for row in rows
        }

    async def head(self) -> Position:
        return await self._session.use(head_position)

    async def check_partitions(self) -> None:
        """Raises WrongPartitions when the log was begun with another number than this process is told."""
        await self._session.use(lambda connection: check_partitions(connection, self._partitions))

    async def head_and_event(self, position: Position) -> tuple[Position, UUID | None]:
        """The log's head, and the id of the event at this position: of one moment."""
        found: list[DatabaseRow] = await self._session.fetch(HEAD_AND_EVENT, (position,))
        return (Position(found[0]["head"]), found[0]["event_id"]) if found else (Position(0), None)

    async def records_after(
        self, position: Position, limit: int, wanted: Callable[[UUID], bool]
    ) -> Stretch[LoggedRecord]:
        async def read(connection: Connection) -> Stretch[LoggedRecord]:
            return await records_after(connection, self._keyring, position, limit=limit, wanted=wanted)

        return await self._reading.use(read)

    async def records_of(self, user_id: UUID, from_version: int, limit: int) -> list[LoggedRecord | Unreadable]:
        async def read(connection: Connection) -> list[LoggedRecord | Unreadable]:
            return await records_of(connection, self._keyring, user_id, from_version=from_version, limit=limit)

        return await self._reading.use(read)

    async def _sift(
        self, connection: Connection, rows: Sequence[Row], steps: Sequence[Step], parks: Sequence[Park]
    ) -> Sequence[Park]:
        """Apply what the table takes; park what is to be parked, and whose row the table does not take."""
        async with connection.transaction():
            await connection.execute(PROJECT, _projection([], steps, strict=False))
            refused = await sift(connection, rows)
            found = [*parks, *(park_row(one.row, one.reason, self._partition(one.row)) for one in refused)]
            if found:
                await connection.execute(PARK, (orjson.dumps(found).decode(),))
                await self._check_limit(connection, found)
                failpoint("projector.parking")
        return found

    def _partition(self, row: Row) -> int:
        return partition_of(UUID(row["id"]), self._partitions)

    async def _check_limit(self, connection: Connection, newest: Sequence[Park]) -> None:
        cursor = await connection.execute(HELD_BACK)
        row = await cursor.fetchone()
        if row is not None and row["held_back"] > self._parked_limit:
            raise TooManyParked(row["held_back"], self._parked_limit, newest[0]["reason"])


def _projection(rows: Sequence[Row], steps: Sequence[Step], *, strict: bool) -> tuple[object, ...]:
    return orjson.dumps(rows).decode(), orjson.dumps([asdict(step) for step in steps]).decode(), strict, SHAPE


def _raise_missing(missing: Sequence[DatabaseRow]) -> None:
    if missing:
        raise VersionsMissing({row["user_id"]: row["held"] for row in missing})


def _translated(error: psycopg.DatabaseError) -> Exception:
    message = error.diag.message_primary or ""
    match error.sqlstate:
        case "MU001":
            return NewerShape(f"{message}: start the projector of the version that rebuilt it")
        case "MU002":
            return PartitionMoved(message)
        case _:
            return error
