"""The primary key and the indexes of the table that is being built, one statement each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from projector import table_ddl
from projector.copy_text import COLUMNS
from projector.sifting import REFUSALS, reason_of
from runtime.database import Connection

# one of another table that has the name does not count, nor one that is not whole
THERE: Final = """
SELECT c.relname AS name FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid IN (to_regclass('read_model.users_next'), to_regclass('read_model.users_next_updated'),
        to_regclass('read_model.users_next_names'))
    AND i.indisvalid
"""
PROBE: Final = "read_model.users_probe"
NAMES: Final = ", ".join(column.name for column in COLUMNS)
FILL: Final = f"""
INSERT INTO {PROBE} ({NAMES}) SELECT {NAMES} FROM {table_ddl.NEXT}
WHERE id BETWEEN %(low)s AND %(high)s
""".encode()  # noqa: S608 - constants
HALVES: Final = """
SELECT a.count, a.ids[1] AS low, a.ids[(a.count + 1) / 2] AS middle, a.ids[(a.count + 1) / 2 + 1] AS next,
    a.ids[a.count] AS high
FROM (
    SELECT count(*)::int AS count, array_agg(id ORDER BY id) AS ids
    FROM read_model.users_next WHERE id BETWEEN %(low)s AND %(high)s
) a
"""
LOWEST: Final = UUID(int=0)
HIGHEST: Final = UUID(int=2**128 - 1)


class _Found(Exception):
    """Ends the search's transaction, whose table nobody is to keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """A user whose row an index does not take; `reason` says nothing personal."""

    user_id: UUID
    reason: str


async def missing_indexes(connection: Connection) -> dict[str, bytes]:
    """The statements that are still to be run, by the names of what they make."""
    cursor = await connection.execute(THERE)
    there = {row["name"] for row in await cursor.fetchall()}
    return {name: statement for name, statement in table_ddl.indexed().items() if name not in there}


async def make_index(connection: Connection, statement: bytes) -> Sequence[Culprit]:
    """Make one of them; gives those whose rows it does not take, and then it is not made."""
    try:
        await connection.execute(statement)
    except REFUSALS:
        found = await _culprits(connection, statement)
        if not found:
            raise
        return found
    return []


async def _culprits(connection: Connection, statement: bytes) -> Sequence[Culprit]:
    """Find them by halves, in a table of their own that is gone afterwards."""
    found: list[Culprit] = []
    probe = PROBE.encode()
    try:
        async with connection.transaction():
            await connection.execute(
                b"CREATE UNLOGGED TABLE %s (LIKE read_model.users_next INCLUDING GENERATED)" % probe
            )
            await connection.execute(statement.replace(table_ddl.NEXT.encode(), probe))
            await _search(connection, LOWEST, HIGHEST, found)
            raise _Found
    except _Found:
        return found


async def _search(connection: Connection, low: UUID, high: UUID, found: list[Culprit]) -> None:
    try:
        async with connection.transaction():
            await connection.execute(FILL, {"low": low, "high": high})
    except REFUSALS as error:
        cursor = await connection.execute(HALVES, {"low": low, "high": high})
        rows = await cursor.fetchall()
        if rows[0]["count"] == 1:
            found.append(Culprit(user_id=rows[0]["low"], reason=reason_of(error)))
        else:
            await _search(connection, rows[0]["low"], rows[0]["middle"], found)
            await _search(connection, rows[0]["next"], rows[0]["high"], found)
