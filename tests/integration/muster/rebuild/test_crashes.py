"""kill -9 of a rebuild at each of its steps: the next run ends well, and nobody ever reads a part of a table."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from events.keyring import Kek, Keyring
from events.recording import Position
from projector import builds, table_ddl
from projector.builds import Build
from projector.following import follow
from projector.lease import leased
from projector.measured import Progress
from projector.rebuild import Rebuild, begun
from projector.swapping import CatchUp, NotWhole, swap
from runtime.database import Connection
from runtime.settings import Settings
from tests.catalog import users_table
from tests.databases import MakeSettings
from tests.histories import History, rows_of
from tests.integration.muster.conftest import Muster
from tests.rebuilds import ending, error, lines, rebuild
from tests.tokens import KEK
from tests.waiting import eventually

Owner = psycopg.Connection[dict[str, Any]]

STEPS = [
    "registered",
    "copied_range",
    "copied_range=kill@3",
    "copied",
    "indexed",
    "caught_up",
    "compared",
    "swapping",
    "swapped",
]


def connections(owner: Owner) -> int:
    """Of rebuilds and their workers."""
    return owner.execute(
        "SELECT count(*) AS count FROM pg_stat_activity"
        " WHERE datname = current_database() AND starts_with(application_name, 'muster rebuild')"
    ).fetchall()[0]["count"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_run_that_was_killed_is_gone_on_with(muster: Muster, peopled: History, owner: Owner, step: str) -> None:
    declared = users_table(owner)
    told = await rebuild(muster, FAILPOINTS=f"rebuild.{step}" if "=" in step else f"rebuild.{step}=kill")
    assert told.status == -9
    await asyncio.to_thread(eventually, lambda: connections(owner) == 0, what="its workers are gone too")
    # what is live is whole at any time
    assert len(rows_of(owner)) == 120
    peopled.create(range(200, 220))
    peopled.change(range(1, 100, 2), display_name="Later")
    peopled.project()
    before = rows_of(owner)
    told = await rebuild(muster)
    # after the swap there was nothing to go on with
    assert (lines(told)[0]["phase"] == "resumed") == (step != "swapped")
    assert ending(told) == {"events": 270, "users": 140, "differences": 0, "parked": 0, "swapped": True}
    assert rows_of(owner) == before
    assert users_table(owner) == declared
    outcomes = owner.execute("SELECT outcome FROM log.operations ORDER BY id").fetchall()
    assert [row["outcome"] for row in outcomes] == ["began", "abandoned", "began", "done"]


async def test_a_worker_that_was_killed_ends_the_run_and_the_next_goes_on(
    muster: Muster, peopled: History, owner: Owner
) -> None:
    before = rows_of(owner)
    told = await rebuild(muster, FAILPOINTS="rebuild.copying_range=kill@2")
    assert told.status == 2
    assert error(told).startswith("a worker process was killed")
    assert owner.execute("SELECT number FROM read_model.build_ranges").fetchall() == [{"number": 0}]
    assert ending(await rebuild(muster))["users"] == 120
    assert rows_of(owner) == before
    assert peopled.head == 200


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings("muster_projector")


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[Connection]:
    async with leased(settings, "the tests") as connection:
        yield connection


@pytest.fixture
async def built(settings: Settings, connection: Connection, peopled: History) -> Build:
    """A build that only the swap is missing of."""
    progress = Progress(lambda _: None)
    built = Rebuild(settings, peopled.keyring, connection, progress, partitions=3)
    build, _ = await begun(connection, fresh=False)
    await built.run(build, workers=1, dry_run=True)
    whole = await builds.unfinished(connection)
    assert whole is not None
    return whole


@pytest.fixture
def catch_up(connection: Connection) -> CatchUp:
    async def to_the_head(build: Build, _: int) -> Build:
        return await follow(connection, Keyring(Kek(KEK)), build, partitions=3)

    return to_the_head


@pytest.mark.parametrize(
    ("without", "why"),
    [
        (b"DELETE FROM read_model.build_ranges WHERE number = 2", "ranges of the log are missing: 1 of 4"),
        (b"UPDATE read_model.builds SET position = NULL", "ranges of the log are missing: 0 of 4"),
        (b"DROP INDEX read_model.next_users_names_idx", "indexes are missing: next_users_names_idx"),
        (b"ALTER TABLE read_model.users_next DROP CONSTRAINT users_next_pkey", "indexes are missing: users_next_pkey"),
        (b"UPDATE read_model.builds SET fingerprint = 'x' WHERE state = 'building'", "not the one that this version"),
        (b"UPDATE read_model.builds SET state = 'abandoned' WHERE state = 'building'", "is not the one that is under"),
    ],
)
async def test_what_is_not_whole_is_never_swapped_in(
    built: Build, connection: Connection, catch_up: CatchUp, owner: Owner, without: bytes, why: str
) -> None:
    made = owner.execute("SELECT 'read_model.users'::regclass::oid AS oid").fetchall()
    owner.execute(without)

    with pytest.raises(NotWhole, match=why):
        await swap(connection, built, catch_up, partitions=3)
    assert owner.execute("SELECT 'read_model.users'::regclass::oid AS oid").fetchall() == made


async def test_what_is_behind_the_head_is_never_swapped_in(
    built: Build, connection: Connection, catch_up: CatchUp, peopled: History
) -> None:
    peopled.create([900])

    async def stay(build: Build, _: int) -> Build:
        return build

    with pytest.raises(NotWhole, match="position 200, before 201"):
        await swap(connection, built, stay, partitions=3)

    assert (await swap(connection, built, catch_up, partitions=3)).position == Position(201)
    assert rows_of(peopled.owner)[peopled.users[900].id]["version"] == 1


async def test_what_is_written_during_the_swap_is_left_to_the_projectors(
    built: Build, connection: Connection, catch_up: CatchUp, peopled: History
) -> None:
    async def overtaken(build: Build, head: int) -> Build:
        build = await catch_up(build, head)
        peopled.create([900])
        return build

    assert (await swap(connection, built, overtaken, partitions=3)).position == Position(200)
    assert peopled.users[900].id not in rows_of(peopled.owner)


async def test_a_table_that_lacks_somebody_is_not_swapped_in(
    built: Build, settings: Settings, connection: Connection, owner: Owner
) -> None:
    owner.execute(f"DELETE FROM {table_ddl.NEXT} WHERE version = 1 AND position < 100".encode())
    again = Rebuild(settings, Keyring(Kek(KEK)), connection, Progress(lambda _: None), partitions=3)
    with pytest.raises(NotWhole, match="rows where the log has 120 users"):
        await again.run(built, workers=1, dry_run=False)
    assert len(rows_of(owner)) == 120
