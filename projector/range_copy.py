"""A range of the log as rows of the table that is being built: the newest event of each user, straight into it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from psycopg import errors

from events.keyring import Keyring, WrongKey
from events.recording import WRAPPED, record_of
from events.sealing import BrokenSeal
from projector.builds import Build, BuildGone
from projector.copy_text import COPY, line_of
from projector.held import newest_shown
from projector.parking import Park
from projector.rows import NoRow, Row, row_of
from projector.sifting import REFUSALS, reason_of
from runtime.database import Connection
from runtime.failpoints import failpoint

SESSION: Final = (
    # a range that a crash of the server forgets is copied again; the swap makes durable what came before it
    "SET synchronous_commit = off",
    # whatever the planner believes of a log that has just grown: a range is a walk of the index, the rest look-ups
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET enable_bitmapscan = off",
    "SET plan_cache_mode = force_generic_plan",
)
# a run that has this build for itself waits here for those who still copy for the one before it
HOLD: Final = "SELECT 1 FROM read_model.builds WHERE id = %s AND state = 'building' FOR SHARE"
NEWEST: Final = f"""
SELECT e.position, e.user_id, e.version, e.type, e.schema, e.event_id, e.data - 'changes' AS data, e.sealed,
    (SELECT {WRAPPED} FROM log.user_keys k WHERE k.user_id = e.user_id) AS wrapped
FROM log.events e
WHERE e.position > %s AND e.position <= %s
    AND NOT EXISTS (SELECT 1 FROM log.events l WHERE l.user_id = e.user_id AND l.version > e.version)
"""  # noqa: S608 - a constant
DONE: Final = "INSERT INTO read_model.build_ranges (build, number, rows) VALUES (%s, %s, %s)"
PARK: Final = "SELECT read_model.park(%s::json, %s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """Positions that a range covers, rows that it gave, users who are parked over it."""

    events: int
    rows: int
    parked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    event: dict[str, Any]
    text: bytes


async def copy_range(connection: Connection, keyring: Keyring, build: Build, number: int, *, partitions: int) -> Copied:
    """Copy one range in one transaction. Raises BuildGone and WrongKey.

    The table has no key yet. Rows are distinct all the same: each user has one newest event. What operators discarded
    counts here like anything else; who has such events is looked at again later (projector/settling.py).
    """
    first, last = number * build.range_size, min((number + 1) * build.range_size, build.goal)
    try:
        async with connection.transaction():
            cursor = await connection.execute(HOLD, (build.id,))
            if await cursor.fetchone() is None:
                raise BuildGone(f"build {build.id} is no longer under way")
            lines, troubled = await _lines(connection, keyring, first, last)
            troubled += await _copy(connection, lines)
            parks = [await _shown(connection, keyring, event, partitions) for event in troubled]
            parks = [park for park in parks if park is not None]
            if parks:
                await connection.execute(PARK, (orjson.dumps(parks).decode(), build.id))
            failpoint("rebuild.copying_range")
            await connection.execute(DONE, (build.id, number, len(lines)))
    except errors.UniqueViolation:
        # by one who was killed, and had said COMMIT already
        return Copied(events=last - first, rows=0, parked=0)
    return Copied(events=last - first, rows=len(lines), parked=len(parks))


async def _lines(
    connection: Connection, keyring: Keyring, first: int, last: int
) -> tuple[list[_Line], list[dict[str, Any]]]:
    """The lines of a range, and the events that none can be made of."""
    lines: list[_Line] = []
    troubled: list[dict[str, Any]] = []
    cursor = connection.cursor(binary=True)
    await cursor.execute(NEWEST, (first, last), prepare=True)
    for event in await cursor.fetchall():
        try:
            text = line_of(row_of(record_of(event, keyring), event["position"]))
        except (BrokenSeal, WrongKey, NoRow):
            troubled.append(event)
        else:
            lines.append(_Line(event=event, text=text))
    return lines, troubled


async def _copy(connection: Connection, lines: Sequence[_Line]) -> list[dict[str, Any]]:
    """Give the events of those lines that the table does not take; the others are in it then."""
    if not lines or await _copied(connection, b"".join([line.text for line in lines])) is None:
        return []
    if len(lines) == 1:
        return [lines[0].event]
    middle = len(lines) // 2
    return [*await _copy(connection, lines[:middle]), *await _copy(connection, lines[middle:])]


async def _copied(connection: Connection, text: bytes) -> str | None:
    """None, or why the table does not take it as a whole."""
    try:
        async with connection.transaction(), connection.cursor() as cursor, cursor.copy(COPY) as copy:
            await copy.write(text)
    except REFUSALS as error:
        return reason_of(error)
    return None


async def _shown(connection: Connection, keyring: Keyring, event: dict[str, Any], partitions: int) -> Park | None:
    async def take(row: Row) -> str | None:
        return await _copied(connection, line_of(row))

    return await newest_shown(
        connection, keyring, event["user_id"], event["version"] + 1, partitions=partitions, take=take
    )
