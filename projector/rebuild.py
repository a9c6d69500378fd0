"""Rebuilds the table of users from the log beside the live one, and puts it in that one's place."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from events.keyring import Keyring
from events.reader import head_position
from projector import builds, table_ddl
from projector.builds import Build
from projector.comparing import Difference, counted, differences
from projector.following import follow
from projector.indexing import make_index, missing_indexes
from projector.measured import Progress
from projector.range_workers import copied_ranges
from projector.settling import Settling
from projector.swapping import InUse, NotWhole, swap
from runtime.database import Connection
from runtime.failpoints import failpoint
from runtime.settings import Settings

# events that may be missing when the projectors are stopped for the swap
FEW: Final = 300
SHOWN: Final = 20
# seconds between two tries to swap: a long reader is waited for, never stood behind
SHORTEST_PAUSE, LONGEST_PAUSE = 0.25, 5.0

NEXT_COUNTS: Final = """
SELECT (SELECT count(*) FROM read_model.users_next) AS users,
    (SELECT count(*) FROM read_model.parked WHERE build = %(build)s) AS parked
"""
LIVE_COUNTS: Final = """
SELECT (SELECT count(*) FROM read_model.users) AS users,
    (SELECT count(*) FROM read_model.parked WHERE build IS NULL AND user_id IS NOT NULL) AS parked
"""
PARTITIONS: Final = "SELECT partitions FROM log.partitioning"


class TooManyHeldBack(Exception):
    """More users are held back than single events' own faults explain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """How it ended: `users` are rows of the table, `parked` are users that it holds back.

    `differences` counts the users whose rows differ, of whom `shown` are the first.
    """

    swapped: bool
    position: int
    users: int
    parked: int
    differences: int
    shown: tuple[Difference, ...]


class Rebuild:
    """One rebuild on a leased connection: begun, or gone on with where one that was killed has left it.

    Every step is recorded with its effect in one transaction. Raises BuildGone, NotWhole, TooManyHeldBack, WorkerDied,
    WrongKey, and psycopg's errors.
    """

    def __init__(
        self, settings: Settings, keyring: Keyring, connection: Connection, progress: Progress, *, partitions: int
    ) -> None:
        self._settings = settings
        self._keyring = keyring
        self._connection = connection
        self._progress = progress
        self._partitions = partitions
        self._settling = Settling(keyring, partitions=partitions)

    async def run(self, build: Build, *, workers: int, dry_run: bool) -> Rebuilt:
        if build.phase == "copying":
            build = await self._copy(build, workers)
        if build.phase == "indexing":
            build = await self._index(build)
        build = await self._catch_up(build)
        failpoint("rebuild.caught_up")
        build = await builds.enter(self._connection, build, "comparing")
        found, shown = await self._compare(build)
        failpoint("rebuild.compared")
        build = await self._catch_up(build)
        await self._check_parked(build)
        if not dry_run:
            build = await self._swap(build)
        assert build.position is not None  # noqa: S101 - it has caught up
        cursor = await self._connection.execute(NEXT_COUNTS if dry_run else LIVE_COUNTS, {"build": build.id})
        counts = await cursor.fetchone() or {}
        return Rebuilt(swapped=not dry_run, position=build.position, differences=found, shown=shown, **counts)

    async def _copy(self, build: Build, workers: int) -> Build:
        missing = await builds.missing_ranges(self._connection, build)
        done = build.goal - sum(
            min((number + 1) * build.range_size, build.goal) - number * build.range_size for number in missing
        )
        self._progress.enter("copying", total=build.goal, done=done)
        parked = await builds.parked(self._connection, build)
        if missing:
            ranges = copied_ranges(
                self._settings, build, missing, workers=min(workers, len(missing)), partitions=self._partitions
            )
            async with aclosing(ranges):
                async for copied in ranges:
                    self._progress.advance(copied.events)
                    parked += copied.parked
                    self._check_limit(parked)
                    failpoint("rebuild.copied_range")
        self._progress.tell()
        build = await builds.enter(self._connection, build, "indexing", build.goal)
        failpoint("rebuild.copied")
        return build

    async def _index(self, build: Build) -> Build:
        missing = await missing_indexes(self._connection)
        total = len(table_ddl.indexed())
        self._progress.enter("indexing", total=total, done=total - len(missing))
        for statement in missing.values():
            while culprits := await make_index(self._connection, statement):
                for culprit in culprits:
                    await self._settling.set_aside(self._connection, build, culprit.user_id, culprit.reason)
                self._check_limit(await builds.parked(self._connection, build))
            self._progress.advance(1)
        # so that plans are good from the first query on
        await self._connection.execute(f"VACUUM (ANALYZE) {table_ddl.NEXT_TABLES}".encode())
        self._progress.tell()
        build = await builds.enter(self._connection, build, "catching-up")
        failpoint("rebuild.indexed")
        return build

    async def _catch_up(self, build: Build) -> Build:
        """Until few events are missing; who is held back or has discarded events is settled then."""
        build = await builds.enter(self._connection, build, "catching-up")
        assert build.position is not None  # noqa: S101 - its ranges are there
        behind = await head_position(self._connection) - build.position
        self._progress.enter("catching-up", total=behind)
        while behind:
            before = build.position
            build = await follow(self._connection, self._keyring, build, partitions=self._partitions)
            assert build.position is not None  # noqa: S101 - as above
            self._progress.advance(build.position - before)
            behind = await head_position(self._connection) - build.position
            self._progress.total = build.position - before + behind
            await self._check_parked(build)
            if behind <= FEW:
                break
        await self._settling.settle(self._connection, build)
        self._progress.tell()
        return build

    async def _compare(self, build: Build) -> tuple[int, tuple[Difference, ...]]:
        count = await counted(self._connection, build)
        if count.users != count.rows:
            raise NotWhole(f"it has {count.rows} rows where the log has {count.users} users")
        self._progress.enter("comparing", total=count.all_rows)
        number, left = 0, count.all_rows
        shown: list[Difference] = []
        async for rows, found in differences(self._connection, build, partitions=self._partitions):
            self._progress.advance(min(rows, left))
            left -= min(rows, left)
            number += len(found)
            shown += found[: SHOWN - len(shown)]
        self._progress.tell()
        return number, tuple(shown)

    async def _swap(self, build: Build) -> Build:
        self._progress.enter("swapping", total=1)
        pause = SHORTEST_PAUSE
        while True:
            try:
                build = await swap(self._connection, build, self._up_to, partitions=self._partitions)
            except InUse:
                # what it remembers of that transaction was rolled back
                self._settling = Settling(self._keyring, partitions=self._partitions)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                build = await self._catch_up(build)
                self._progress.enter("swapping", total=1)
            else:
                self._progress.advance(1)
                self._progress.tell()
                return build

    async def _up_to(self, build: Build, head: int) -> Build:
        assert build.position is not None  # noqa: S101 - it has caught up
        while build.position < head:
            build = await follow(self._connection, self._keyring, build, partitions=self._partitions)
            assert build.position is not None  # noqa: S101 - as above
        await self._settling.settle(self._connection, build)
        return build

    async def _check_parked(self, build: Build) -> int:
        parked = await builds.parked(self._connection, build)
        self._check_limit(parked)
        return parked

    def _check_limit(self, parked: int) -> None:
        if parked > self._settings.parked_limit:
            raise TooManyHeldBack(
                f"{parked} users are held back over events that cannot be applied, more than PARKED_LIMIT"
                f" ({self._settings.parked_limit}): this looks like a fault of this version or its settings, not of the"
                " events. The build stays: go on with a higher PARKED_LIMIT, or begin anew with --fresh"
            )


async def begun(connection: Connection, *, fresh: bool) -> tuple[Build, bool]:
    """Give the build to go on with, and whether it is a new one; one of another table is dropped first."""
    build = await builds.unfinished(connection)
    if build is not None and (fresh or build.fingerprint != table_ddl.fingerprint()):
        await builds.abandon(connection, build)
        build = None
    if build is not None:
        return build, False
    build = await builds.register(connection)
    failpoint("rebuild.registered")
    return build, True


async def partitions_of(connection: Connection, settings: Settings) -> int:
    """How many partitions the topics have, or are to have."""
    cursor = await connection.execute(PARTITIONS)
    row = await cursor.fetchone()
    return settings.topic_partitions if row is None else row["partitions"]
