"""What every change of the stored keys stands on: one at a time, on a connection without bounds."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from events import operations
from muster.failures import Refused
from projector.lease import connected
from runtime.database import Connection
from runtime.settings import Settings

# pg_advisory_lock key: any number that nothing else in this database locks
CHANGING: Final = 7_203_314
# rows of a transaction: short enough that nobody waits, long enough that commits are not what takes the time
BATCH: Final = 500
# a pass that finds something is followed by another; processes that go on writing as before would keep it up for ever
PASSES: Final = 5
# as in migrations/sql/append.sql: by index, whatever the planner believes of a table's size
SESSION: Final = (
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET enable_bitmapscan = off",
)


@asynccontextmanager
async def changing(settings: Settings, operation: str | None = None) -> AsyncGenerator[Connection]:
    """Lend the connection of the only change of keys; `operation` is what it is recorded as, if it is.

    Raises Refused while there is another, and psycopg's errors.
    """
    async with await connected(settings, "muster keys") as connection:
        cursor = await connection.execute("SELECT pg_try_advisory_lock(%s) AS won", (CHANGING,))
        row = await cursor.fetchone()
        if row is None or not row["won"]:
            raise Refused(
                "another change of keys is under way: wait for its end, or stop it; either loses nothing",
                code="under_way",
            )
        for setting in SESSION:
            await connection.execute(setting)
        if operation is not None:
            # one that was killed told of no end
            await operations.give_up_unfinished(connection, operation)
        yield connection
