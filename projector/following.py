"""The table that is being built brought on from where it is towards the head of the log."""

from typing import Final
from uuid import UUID

import orjson

from events.keyring import Keyring
from events.reader import head_position, records_after
from projector.builds import Build, enter
from projector.catch_up import sorted_out
from projector.held import park_of
from projector.sifting import sift
from projector.table_ddl import NEXT
from runtime.database import Connection

BATCH: Final = 2000
HOLD: Final = "SELECT 1 FROM read_model.builds WHERE id = %s AND state = 'building' FOR UPDATE"
PARK: Final = "SELECT read_model.park(%s::json, %s)"


async def follow(connection: Connection, keyring: Keyring, build: Build, *, partitions: int) -> Build:
    """Apply the next events to the table of a build that stands at a position, in one transaction.

    Gives the build where it stands then: not before the head that the log had when this was called, unless the batch
    was full. Raises BuildGone and WrongKey.
    """
    assert build.position is not None  # noqa: S101 - the caller's part
    async with connection.transaction():
        # before reading: who is erased meanwhile is so in the table too, or is read as erased
        await connection.execute(HOLD, (build.id,))
        head = await head_position(connection)
        stretch = await records_after(connection, keyring, build.position, limit=BATCH, wanted=lambda _: True)
        end = stretch.end if stretch.end is not None else head
        rows, parks = sorted_out(stretch.found, partitions)
        refused = await sift(connection, rows, target=NEXT, build=build.id)
        parks += [
            park_of(UUID(one.row["id"]), one.row["version"], one.row["position"], one.reason, partitions=partitions)
            for one in refused
        ]
        if parks:
            await connection.execute(PARK, (orjson.dumps(parks).decode(), build.id))
        return await enter(connection, build, build.phase, end)
