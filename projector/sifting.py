"""Rows that the table does not take, told from those that came with them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import psycopg
from psycopg import errors

from projector.rows import Row, folded
from runtime.database import Connection

PUT: Final = "SELECT read_model.put(%s::regclass, %s::json, %s)"
LIVE: Final = "read_model.users"

# what the database says of a row rather than of itself: trying again would not help
REFUSALS: Final = (psycopg.DataError, psycopg.IntegrityError, errors.ProgramLimitExceeded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The first row of a user that the table does not take; `reason` says nothing personal."""

    row: Row
    reason: str


async def sift(
    connection: Connection, rows: Iterable[Row], *, target: str = LIVE, build: int | None = None
) -> list[Refused]:
    """Put what the table takes of these rows (a user's in order), within the caller's transaction.

    Of a user whose row is refused, the rows before it are put. Raises what the database says of itself.
    """
    by_user: dict[str, list[Row]] = {}
    for row in rows:
        by_user.setdefault(row["id"], []).append(row)
    return await _sift(connection, list(by_user.values()), (target, build))


async def _sift(connection: Connection, users: Sequence[Sequence[Row]], where: tuple[str, int | None]) -> list[Refused]:
    if not users:
        return []
    try:
        await _put(connection, [row for rows in users for row in rows], where)
    except REFUSALS as error:
        if len(users) == 1:
            return await _sift_one(connection, users[0], where, error)
        middle = len(users) // 2
        return [*await _sift(connection, users[:middle], where), *await _sift(connection, users[middle:], where)]
    return []


async def _sift_one(
    connection: Connection, rows: Sequence[Row], where: tuple[str, int | None], error: psycopg.Error
) -> list[Refused]:
    if len(rows) == 1:
        return [Refused(row=rows[0], reason=reason_of(error))]
    for row in rows:
        try:
            await _put(connection, [row], where)
        except REFUSALS as refusal:
            return [Refused(row=row, reason=reason_of(refusal))]
    return []


async def _put(connection: Connection, rows: Iterable[Row], where: tuple[str, int | None]) -> None:
    target, build = where
    async with connection.transaction():
        await connection.execute(PUT, (target, orjson.dumps(folded(rows)).decode(), build))


def reason_of(error: psycopg.Error) -> str:
    """Say why the table does not take a row, and nothing personal."""
    # not the message: it may quote what the user's record says
    about: Mapping[str, str | None] = {"constraint": error.diag.constraint_name, "column": error.diag.column_name}
    named = "".join(f", {kind} {name}" for kind, name in about.items() if name)
    return f"the table does not take it: {type(error).__name__} ({error.sqlstate}){named}"
