"""Users whom the build has to look at again: they are held back, or operators discarded events of theirs."""

from typing import Final
from uuid import UUID

import orjson

from events.keyring import Keyring
from projector.builds import Build
from projector.held import NEWEST, newest_shown, park_of
from projector.parking import Park
from projector.rows import Row
from projector.sifting import sift
from projector.table_ddl import NEXT
from runtime.database import Connection

HELD: Final = """
SELECT DISTINCT user_id FROM read_model.parked WHERE user_id IS NOT NULL AND (build IS NULL OR build = %s)
"""
DISCARDED: Final = "SELECT position, user_id FROM log.discarded WHERE position <> ALL (%s)"
LIVE: Final = """
SELECT version, position, reason FROM read_model.parked WHERE user_id = %s AND build IS NULL
"""
SHOWN: Final = "SELECT version, position FROM read_model.users_next WHERE id = %s"
REMOVE: Final = """
WITH row AS (DELETE FROM read_model.users_next WHERE id = %(user)s),
    place AS (DELETE FROM read_model.users_next_updated WHERE id = %(user)s)
DELETE FROM read_model.users_next_names WHERE id = %(user)s
"""
RELEASE: Final = "DELETE FROM read_model.parked WHERE user_id = %s AND build = %s"
PARK: Final = "SELECT read_model.park(%s::json, %s)"


class Settling:
    """Remembers whose discarded events were looked at, so that the last look is a short one."""

    def __init__(self, keyring: Keyring, *, partitions: int) -> None:
        self._keyring = keyring
        self._partitions = partitions
        self._seen: set[int] = set()

    async def settle(self, connection: Connection, build: Build) -> None:
        """Give everyone who is held back, or has a discarded event, the row that is theirs now. Raises WrongKey.

        Who is held back from the live table stays so in the build, from the same version on. Who is not any more, or
        was held back by the build alone, is tried again.
        """
        cursor = await connection.execute(HELD, (build.id,))
        users = {row["user_id"] for row in await cursor.fetchall()}
        cursor = await connection.execute(DISCARDED, (list(self._seen),))
        discarded = await cursor.fetchall()
        users |= {row["user_id"] for row in discarded}
        for user_id in sorted(users):
            cursor = await connection.execute(LIVE, (user_id,))
            live = await cursor.fetchone()
            if live is None:
                await self._set_back(connection, build, user_id, NEWEST, None)
            else:
                park = park_of(user_id, live["version"], live["position"], live["reason"], partitions=self._partitions)
                await self._set_back(connection, build, user_id, live["version"], park)
        self._seen |= {row["position"] for row in discarded}

    async def set_aside(self, connection: Connection, build: Build, user_id: UUID, reason: str) -> None:
        """Hold a user back from the event on that their row is of. Raises WrongKey."""
        cursor = await connection.execute(SHOWN, (user_id,))
        row = await cursor.fetchone()
        if row is not None:
            park = park_of(user_id, row["version"], row["position"], reason, partitions=self._partitions)
            await self._set_back(connection, build, user_id, row["version"], park)

    async def _set_back(
        self, connection: Connection, build: Build, user_id: UUID, before: int, park: Park | None
    ) -> None:
        """Give a user the newest row before a version, and hold them back as `park` says. Raises WrongKey."""

        async def take(row: Row) -> str | None:
            refused = await sift(connection, [row], target=NEXT, build=build.id)
            return refused[0].reason if refused else None

        async with connection.transaction():
            await connection.execute(RELEASE, (user_id, build.id))
            await connection.execute(REMOVE, {"user": user_id})
            earlier = await newest_shown(
                connection, self._keyring, user_id, before, partitions=self._partitions, take=take
            )
            if (park := earlier or park) is not None:
                await connection.execute(PARK, (orjson.dumps([park]).decode(), build.id))
