"""The tables that rebuilds make: one is live, at most one is being built."""

from dataclasses import dataclass
from typing import Final, Literal

from events.recording import Position
from projector import table_ddl
from projector.read_model import SHAPE
from runtime.database import Connection

Phase = Literal["copying", "indexing", "catching-up", "comparing"]

# a small log has smaller ranges, so that every worker has some
SMALLEST_RANGE, LARGEST_RANGE, FEWEST_RANGES = 50, 5_000, 16
RANGE_SIZES: Final = (SMALLEST_RANGE, LARGEST_RANGE, FEWEST_RANGES)

COLUMNS: Final = "id, fingerprint, goal, range_size, position, phase"
UNFINISHED: Final = f"SELECT {COLUMNS} FROM read_model.builds WHERE state = 'building'"  # noqa: S608 - a constant
REGISTER: Final = f"""
INSERT INTO read_model.builds (state, shape, fingerprint, goal, range_size, phase)
SELECT 'building', %s, %s, h.position, greatest(%s, least(%s, h.position / %s)),
    'copying'
FROM log.head h RETURNING {COLUMNS}
"""  # noqa: S608 - constants
ENTER: Final = f"""
UPDATE read_model.builds SET phase = %s, position = coalesce(%s, position) WHERE id = %s AND state = 'building'
RETURNING {COLUMNS}
"""  # noqa: S608 - a constant
ABANDON: Final = "UPDATE read_model.builds SET state = 'abandoned', ended_at = now() WHERE id = %s"
FORGET_RANGES: Final = "DELETE FROM read_model.build_ranges WHERE build = %s"
FORGET_PARKED: Final = "DELETE FROM read_model.parked WHERE build = %s"
DROP: Final = f"DROP TABLE IF EXISTS {table_ddl.NEXT_TABLES}".encode()
MISSING: Final = """
SELECT n.number FROM generate_series(0, %s::bigint) AS n (number)
WHERE NOT EXISTS (SELECT 1 FROM read_model.build_ranges r WHERE r.build = %s AND r.number = n.number)
ORDER BY n.number
"""
PARKED: Final = "SELECT count(*) AS count FROM read_model.parked WHERE build = %s"


class BuildGone(Exception):
    """The build that this process works on was abandoned or promoted by another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """`goal`: the ranges of `range_size` positions go up to it. `position`: every event up to it is in the table."""

    id: int
    fingerprint: str
    goal: Position
    range_size: int
    position: Position | None
    phase: Phase

    @property
    def ranges(self) -> int:
        return -(-self.goal // self.range_size)


async def unfinished(connection: Connection) -> Build | None:
    cursor = await connection.execute(UNFINISHED)
    row = await cursor.fetchone()
    return None if row is None else Build(**row)


async def register(connection: Connection) -> Build:
    """Begin a build with an empty table of the declared shape, in one transaction."""
    async with connection.transaction():
        await connection.execute(DROP)
        for statement in table_ddl.created():
            await connection.execute(statement)
        cursor = await connection.execute(REGISTER, (SHAPE, table_ddl.fingerprint(), *RANGE_SIZES))
        row = await cursor.fetchone()
    if row is None:
        raise BuildGone("the log has no head: run `muster migrate`")
    return Build(**row)


async def enter(connection: Connection, build: Build, phase: Phase, position: Position | None = None) -> Build:
    """Record the phase, and how far the table is if that changes. Raises BuildGone."""
    cursor = await connection.execute(ENTER, (phase, position, build.id))
    row = await cursor.fetchone()
    if row is None:
        raise BuildGone(f"build {build.id} is no longer under way")
    return Build(**row)


async def abandon(connection: Connection, build: Build) -> None:
    """Drop what was built, in one transaction."""
    async with connection.transaction():
        # first: whoever still copies a range has ended then, and none begins another
        await connection.execute(ABANDON, (build.id,))
        await connection.execute(DROP)
        await connection.execute(FORGET_RANGES, (build.id,))
        await connection.execute(FORGET_PARKED, (build.id,))


async def missing_ranges(connection: Connection, build: Build) -> list[int]:
    cursor = await connection.execute(MISSING, (build.ranges - 1, build.id))
    return [row["number"] for row in await cursor.fetchall()]


async def parked(connection: Connection, build: Build) -> int:
    """How many users the build holds back."""
    cursor = await connection.execute(PARKED, (build.id,))
    row = await cursor.fetchone()
    return row["count"] if row is not None else 0
