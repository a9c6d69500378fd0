"""The rows of the live table as they are held there, told as the log would tell them."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Column, DateTime
from sqlalchemy.dialects.postgresql import JSONB

from events.histories import FETCHED_AT_ONCE, KeyRange
from projector.judging import NAMED, ORDERED, ORDERED_ROLES, ORDERED_STATUS, HeldRow
from projector.read_model import users
from runtime.database import Connection, Row

# what Postgres computes of the others is theirs to judge
COLUMNS: Final = tuple(column for column in users.columns if column.computed is None and column.name != "id")
DOCUMENTS: Final = tuple(column.name for column in COLUMNS if isinstance(column.type, JSONB))


def _time(column: str) -> str:
    # as text, whatever an operator's hand has put there: Python has no moment after the year 9999
    return f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def _selected(column: Column[Any]) -> str:
    if isinstance(column.type, DateTime):
        return f"{_time(f'u.{column.name}')} AS {column.name}"
    return f"u.{column.name}::text" if isinstance(column.type, JSONB) else f"u.{column.name}"


# the name is told as the row has it, unless searches are told another
IN_RANGE: Final = f"""
SELECT u.id, {", ".join(map(_selected, COLUMNS))}, {_time("o.updated_at")} AS "{ORDERED}",
    o.status AS "{ORDERED_STATUS}", o.roles AS "{ORDERED_ROLES}",
    CASE WHEN n.name IS NOT DISTINCT FROM read_model.folded(' ' || u.display_name) THEN u.display_name ELSE n.name END
        AS "{NAMED}"
FROM read_model.users u LEFT JOIN read_model.users_updated o ON o.id = u.id
LEFT JOIN read_model.users_names n ON n.id = u.id
WHERE u.id BETWEEN %s AND %s ORDER BY u.id
"""  # noqa: S608 - of the declared columns


@asynccontextmanager
async def rows_in(connection: Connection, keys: KeyRange) -> AsyncGenerator[AsyncIterator[tuple[UUID, HeldRow]]]:
    """The rows of a range's users in order, fetched as they are taken, within the caller's transaction."""
    async with connection.cursor(name="rows") as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        await cursor.execute(IN_RANGE.encode(), (keys.first, keys.last))
        yield ((row["id"], _held(row)) async for row in cursor)


def _held(row: Row) -> HeldRow:
    for name in DOCUMENTS:
        row[name] = _parsed(row[name])
    return row | {"id": str(row["id"])}


def _parsed(document: str | None) -> object:
    if document is None:
        return None
    try:
        return orjson.loads(document)
    except orjson.JSONDecodeError:
        # a number that only Postgres can hold: no event has it
        return document
