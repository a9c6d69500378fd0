"""One rebuild at a time: whoever rebuilds holds a lock of the database for as long as its connection lives."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from projector.read_model import REBUILDING
from runtime.database import Connection, Row
from runtime.settings import Settings

# a run that was killed leaves within the server's next look at its connection
LEAVES_WITHIN: Final = 3.0
PAUSE: Final = 0.2

SESSION: Final = (
    "SET jit = off",
    # the server notices within a long statement that whoever asked for it is gone
    "SET client_connection_check_interval = '500ms'",
    "SET maintenance_work_mem = '256MB'",
)
HOLDER: Final = """
SELECT a.pid, a.application_name, a.backend_start
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = %s AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class RebuildUnderWay(Exception):
    """Another rebuild holds the lock; the message says who."""


async def connected(settings: Settings, application: str) -> Connection:
    """Connect in autocommit, without bounds on how long a statement takes."""
    connection = await psycopg.AsyncConnection[Row].connect(
        settings.database_url.get_secret_value(),
        autocommit=True,
        row_factory=dict_row,
        connect_timeout=10,
        application_name=application,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
    )
    set_json_loads(orjson.loads, connection)
    for setting in SESSION:
        await connection.execute(setting)
    return connection


@asynccontextmanager
async def leased(settings: Settings, operator: str) -> AsyncGenerator[Connection]:
    """Lend the connection that all of a rebuild is decided on. Raises RebuildUnderWay."""
    connection = await connected(settings, f"muster rebuild by {operator}"[:63])
    async with connection:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LEAVES_WITHIN
        while not await _won(connection):
            if loop.time() > deadline:
                raise RebuildUnderWay(await _holder(connection))
            await asyncio.sleep(PAUSE)
        yield connection


async def _won(connection: Connection) -> bool:
    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s) AS won", (REBUILDING,))
    row = await cursor.fetchone()
    return row is not None and row["won"]


async def _holder(connection: Connection) -> str:
    cursor = await connection.execute(HOLDER, (REBUILDING,))
    row = await cursor.fetchone()
    if row is None:
        return "a rebuild has just ended: say it again"
    # of another login's connection the server tells less
    since = f", since {row['backend_start']:%Y-%m-%d %H:%M:%S %Z}" if row["backend_start"] is not None else ""
    return f"a rebuild is under way: {row['application_name']} (database process {row['pid']}{since})"
