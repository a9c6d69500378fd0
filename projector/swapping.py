"""The table that was built takes the live one's place, in one transaction: whole, or not at all."""

from collections.abc import Awaitable, Callable
from typing import Final

from psycopg import errors

from events.reader import head_position
from projector import table_ddl
from projector.builds import Build, missing_ranges, unfinished
from projector.indexing import missing_indexes
from projector.read_model import SHAPE
from runtime.database import Connection
from runtime.failpoints import failpoint

# readers and projectors wait for no longer than this behind a swap that waits itself
LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '200ms'"
# every projector takes a row of it before it touches the table; rows that are added meanwhile are covered too
STOP_PROJECTORS: Final = "LOCK TABLE read_model.progress IN EXCLUSIVE MODE"
# in the order in which they name them
STOP_READERS: Final = (
    "LOCK TABLE read_model.users_updated, read_model.users, read_model.users_names IN ACCESS EXCLUSIVE MODE"
)

# who is held back from both is so from the earlier version on
PARKED_EARLIER: Final = """
DELETE FROM read_model.parked k USING read_model.parked b
WHERE k.build IS NULL AND b.build = %s AND b.user_id = k.user_id AND b.version < k.version
"""
PARKED_ALREADY: Final = """
DELETE FROM read_model.parked b USING read_model.parked k
WHERE b.build = %s AND k.build IS NULL AND k.user_id = b.user_id
"""
PARKED: Final = "UPDATE read_model.parked SET build = NULL WHERE build = %s"
MOVED: Final = """
UPDATE read_model.progress SET position = %(position)s, moved_at = clock_timestamp() WHERE position < %(position)s
"""
BEGUN: Final = """
INSERT INTO read_model.progress (partition, next_offset, position)
SELECT n.partition, -1, %s FROM generate_series(0, %s - 1) AS n (partition) ON CONFLICT DO NOTHING
"""
REPLACED: Final = "UPDATE read_model.builds SET state = 'replaced', ended_at = now() WHERE state = 'live'"
LIVE: Final = """
UPDATE read_model.builds SET state = 'live', phase = 'live', shape = %s, ended_at = now() WHERE id = %s
"""

# applies to the build what it lacks up to a position
CatchUp = Callable[[Build, int], Awaitable[Build]]


class NotWhole(Exception):
    """A part of the build is missing: it is not to be read by anyone. The message says which."""


class InUse(Exception):
    """Somebody has held the live table for longer than the swap is to keep others waiting. Nothing was done."""


async def swap(connection: Connection, build: Build, catch_up: CatchUp, *, partitions: int) -> Build:
    """Bring the table up to the head and put it in the live one's place. Raises NotWhole and InUse.

    `catch_up` is to apply all that the log has, within this transaction: no projector moves meanwhile. Writers do, and
    what they add from then on is the projectors' again.
    """
    try:
        async with connection.transaction():
            await connection.execute(LOCK_TIMEOUT)
            await connection.execute(STOP_PROJECTORS)
            await check_whole(connection, build)
            head = await head_position(connection)
            build = await catch_up(build, head)
            if build.position is None or build.position < head:
                raise NotWhole(f"it is at position {build.position}, before {head}, where the live table may be")
            await connection.execute(STOP_READERS)
            for statement in table_ddl.swapped():
                await connection.execute(statement)
            for query in (PARKED_EARLIER, PARKED_ALREADY, PARKED):
                await connection.execute(query, (build.id,))
            await connection.execute(MOVED, {"position": build.position})
            await connection.execute(BEGUN, (build.position, partitions))
            await connection.execute(REPLACED)
            await connection.execute(LIVE, (SHAPE, build.id))
            failpoint("rebuild.swapping")
    except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
        raise InUse(str(error)) from error
    failpoint("rebuild.swapped")
    return build


async def check_whole(connection: Connection, build: Build) -> None:
    """Raises NotWhole unless this is the build under way and all its parts are there."""
    current = await unfinished(connection)
    if current is None or current.id != build.id:
        raise NotWhole(f"build {build.id} is not the one that is under way")
    if current.fingerprint != table_ddl.fingerprint():
        raise NotWhole("its table is not the one that this version declares")
    missing = await missing_ranges(connection, build)
    if current.position is None or missing:
        raise NotWhole(f"ranges of the log are missing: {len(missing)} of {build.ranges}")
    if indexes := await missing_indexes(connection):
        raise NotWhole(f"indexes are missing: {', '.join(indexes)}")
