"""Positions of the log as operators tell them: by number, or by moment."""

from datetime import UTC, datetime, timedelta
from typing import Final

from events.recording import Position
from events.wire import time_to_wire
from muster.failures import CannotRun
from runtime.database import Connection

LARGEST: Final = 2**63 - 1


async def position_told(connection: Connection, told: str, option: str, *, before: bool) -> Position:
    """The position of a position or a moment; with `before`, the last one that is not of it any more."""
    if told.isascii() and told.isdigit():
        if int(told) > LARGEST:
            raise CannotRun(f"{option}: there is no position {told}")
        return Position(max(0, int(told) - (1 if before else 0)))
    try:
        moment = datetime.fromisoformat(told)
    except ValueError:
        raise CannotRun(f"{option} takes a position, or a moment like 2026-03-01T00:00:00Z") from None
    if moment.tzinfo is None:
        raise CannotRun(f"{option}: say the moment's offset too: {told}Z for UTC")
    try:
        moment = moment.astimezone(UTC) - timedelta(microseconds=1 if before else 0)
    except OverflowError:
        raise CannotRun(f"{option}: {told} is before all time") from None
    cursor = await connection.execute("SELECT log.position_at(%s::timestamptz) AS position", (time_to_wire(moment),))
    row = await cursor.fetchone()
    return Position(row["position"] if row is not None else 0)
