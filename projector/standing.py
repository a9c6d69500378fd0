"""Where the log, the topics and the read model stand at one moment, for whoever compares them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

from events.partitioning import partition_of
from events.reader import head_position
from events.recording import Position
from projector.judging import Expectation
from projector.read_model import REACHED, SHAPE
from runtime.database import Connection
from runtime.settings import Settings

STANDS: Final = f"""
SELECT p.partition, {REACHED} AS reached
FROM read_model.progress p LEFT JOIN log.publication r ON r.topic = %s AND r.partition = p.partition
"""  # noqa: S608 - constants
PUBLISHED: Final = "SELECT topic, partition, position, next_offset FROM log.publication WHERE topic = ANY(%s)"
PARKED: Final = "SELECT user_id, version FROM read_model.parked WHERE build IS NULL AND user_id IS NOT NULL"
UNPUBLISHED: Final = "SELECT user_id, version FROM log.parked"
# whom an operator or an erasure had the relay take up again: their events are in the topics later than their positions
TAKEN_UP: Final = """
SELECT DISTINCT (o.parameters->>'user_id')::uuid AS user_id FROM log.operations o
WHERE o.operation IN ('parked.retry', 'parked.discard') AND o.parameters->>'held_back_from' = 'topics'
UNION SELECT x.user_id FROM log.erasures x WHERE (x.removed->>'log.parked')::int > 0
"""


class CannotVerify(Exception):
    """What was to be compared is not there; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What the relay says of a partition of a topic: every event up to `position` is before `next_offset`."""

    position: Position
    next_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`parked` and `unpublished` are the users whom projector and relay hold back, each from a version on."""

    head: Position
    partitions: int
    users: int
    reached: Mapping[int, Position]
    written: Mapping[tuple[str, int], Written]
    parked: Mapping[UUID, int]
    unpublished: Mapping[UUID, int]
    taken_up: frozenset[UUID]
    discarded: int

    def expectation(self, user_id: UUID) -> Expectation:
        return Expectation(
            reached=self.reached[partition_of(user_id, self.partitions)],
            parked=self.parked.get(user_id),
            unpublished=self.unpublished.get(user_id),
        )


async def standing(connection: Connection, settings: Settings) -> Standing:
    """Raises CannotVerify when there is no read model that could be compared."""
    partitions = await _partitions(connection, settings)
    await _check_shape(connection)
    head = await head_position(connection)
    cursor = await connection.execute(STANDS, (settings.events_topic,))
    reached = {row["partition"]: Position(row["reached"]) for row in await cursor.fetchall()}
    missing = [str(number) for number in range(partitions) if number not in reached]
    if head and (missing or not any(reached.values())):
        which = f"no projector has ever had partition {', '.join(missing)}" if missing else "nothing was projected yet"
        raise CannotVerify(f"{which}: start the projector, or run `muster rebuild users`")
    cursor = await connection.execute(PUBLISHED, ([settings.events_topic, settings.snapshot_topic],))
    written = {
        (row["topic"], row["partition"]): Written(position=Position(row["position"]), next_offset=row["next_offset"])
        for row in await cursor.fetchall()
    }
    cursor = await connection.execute(TAKEN_UP)
    taken_up = frozenset(row["user_id"] for row in await cursor.fetchall())
    cursor = await connection.execute(
        "SELECT (SELECT count(*) FROM log.user_keys) AS users, (SELECT count(*) FROM log.discarded) AS discarded"
    )
    counted = await cursor.fetchone() or {}
    return Standing(
        head=head,
        partitions=partitions,
        users=counted["users"],
        reached={number: reached.get(number, Position(0)) for number in range(partitions)},
        written=written,
        parked=await _held_back(connection, PARKED),
        unpublished=await _held_back(connection, UNPUBLISHED),
        taken_up=taken_up,
        discarded=counted["discarded"],
    )


async def _partitions(connection: Connection, settings: Settings) -> int:
    cursor = await connection.execute("SELECT partitions FROM log.partitioning")
    row = await cursor.fetchone()
    if row is not None and row["partitions"] != settings.topic_partitions:
        raise CannotVerify(
            f"TOPIC_PARTITIONS is {settings.topic_partitions}, and this log was begun with {row['partitions']}, which"
            f" is fixed for ever: set it to {row['partitions']}"
        )
    return settings.topic_partitions


async def _check_shape(connection: Connection) -> None:
    cursor = await connection.execute("SELECT shape FROM read_model.builds WHERE state = 'live'")
    row = await cursor.fetchone()
    live = row["shape"] if row is not None else None
    if live != SHAPE:
        remedy = "run `muster rebuild users`" if live is None or live < SHAPE else "use the muster that rebuilt it"
        raise CannotVerify(f"the read model has shape {live}, and this version knows shape {SHAPE}: {remedy}")


async def _held_back(connection: Connection, query: LiteralString) -> dict[UUID, int]:
    cursor = await connection.execute(query)
    return {row["user_id"]: row["version"] for row in await cursor.fetchall()}
