"""The table that was built beside the live one: where they differ, and whether it has everybody."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from psycopg import sql

from events.partitioning import partition_of
from events.recording import Position
from projector.builds import Build
from runtime.database import Connection

STRETCH: Final = 10_000
LOWEST: Final = UUID(int=0)
HIGHEST: Final = UUID(int=2**128 - 1)

COMMON: Final = """
SELECT n.attname AS name FROM pg_attribute n JOIN pg_attribute u ON u.attname = n.attname
WHERE n.attrelid = 'read_model.users_next'::regclass AND u.attrelid = 'read_model.users'::regclass
    AND n.attnum > 0 AND NOT n.attisdropped AND NOT u.attisdropped AND n.attname <> 'id'
ORDER BY n.attnum
"""
NEXT_STRETCH: Final = """
SELECT id FROM read_model.users_next WHERE id > %s ORDER BY id OFFSET %s LIMIT 1
"""
# one statement is one snapshot: the rows, and how far the live table is by partition
DIFFERENT: Final = sql.SQL("""
SELECT coalesce(n.id, u.id) AS id, u.version AS live_version, u.position AS live_position,
    n.version AS next_version, n.position AS next_position, {columns} AS columns,
    (SELECT coalesce(json_object_agg(p.partition, p.position), '{{}}') FROM read_model.progress p) AS reached
FROM (SELECT * FROM read_model.users WHERE id > %(after)s AND id <= %(last)s) u
FULL JOIN (SELECT * FROM read_model.users_next WHERE id > %(after)s AND id <= %(last)s) n ON n.id = u.id
WHERE u.id IS NULL OR n.id IS NULL OR ({live}) IS DISTINCT FROM ({next})
ORDER BY 1
""")
# who is held back or has a discarded event may rightly have no row
ROWS: Final = """
WITH special AS MATERIALIZED (
    SELECT user_id FROM read_model.parked WHERE user_id IS NOT NULL
    UNION SELECT user_id FROM log.discarded
), missing AS (
    SELECT count(*) AS count FROM log.events e WHERE e.position > %(position)s AND e.version = 1
)
SELECT
    (SELECT count(*) FROM log.events e WHERE e.version = 1)
        - (SELECT count FROM missing)
        - (SELECT count(*) FROM special s JOIN log.events e ON e.user_id = s.user_id AND e.version = 1
            AND e.position <= %(position)s) AS users,
    (SELECT count(*) FROM read_model.users_next)
        - (SELECT count(*) FROM special s JOIN read_model.users_next n ON n.id = s.user_id) AS rows,
    (SELECT count(*) FROM read_model.users_next) AS all_rows
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A user whose rows differ: in which columns; versions and positions are None where there is no row."""

    user_id: UUID
    columns: tuple[str, ...]
    live_version: int | None
    live_position: int | None
    next_version: int | None
    next_position: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Users that the log has and rows that the table has, without those who may rightly have none."""

    users: int
    rows: int
    all_rows: int


async def counted(connection: Connection, build: Build) -> Counted:
    cursor = await connection.execute(ROWS, {"position": build.position})
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - of a SELECT without FROM
    return Counted(**row)


async def differences(
    connection: Connection, build: Build, *, partitions: int
) -> AsyncGenerator[tuple[int, list[Difference]]]:
    """Compare stretch by stretch of ids, each in one snapshot; gives how many rows it had and how they differ.

    What differs only because one of the two tables has not come as far as the other is no difference.
    """
    assert build.position is not None  # noqa: S101 - the caller's part
    cursor = await connection.execute(COMMON)
    query = _query([row["name"] for row in await cursor.fetchall()])
    after = LOWEST
    while after != HIGHEST:
        cursor = await connection.execute(NEXT_STRETCH, (after, STRETCH - 1))
        row = await cursor.fetchone()
        last = HIGHEST if row is None else row["id"]
        cursor = await connection.execute(query, {"after": after, "last": last})
        found = [_difference(row) for row in await cursor.fetchall() if not _behind(row, build.position, partitions)]
        yield STRETCH, found
        after = last


def _query(columns: list[str]) -> sql.Composed:
    live, built = (sql.SQL(", ").join(sql.Identifier(side, name) for name in columns) for side in ("u", "n"))
    differing = sql.SQL(", ").join(
        sql.SQL("CASE WHEN {} IS DISTINCT FROM {} THEN {} END").format(
            sql.Identifier("u", name), sql.Identifier("n", name), sql.Literal(name)
        )
        for name in columns
    )
    return DIFFERENT.format(
        columns=sql.SQL("array_remove(ARRAY[{}], NULL)").format(differing),
        live=sql.SQL("ROW({})").format(live),
        next=sql.SQL("ROW({})").format(built),
    )


def _behind(row: Mapping[str, Any], position: Position, partitions: int) -> bool:
    reached = row["reached"].get(str(partition_of(row["id"], partitions)), 0)
    return (row["live_position"] or 0) > position or (row["next_position"] or 0) > reached


def _difference(row: Mapping[str, Any]) -> Difference:
    return Difference(
        user_id=row["id"],
        columns=tuple(row["columns"]),
        **{name: row[name] for name in ("live_version", "live_position", "next_version", "next_position")},
    )
