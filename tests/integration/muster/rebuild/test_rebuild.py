"""`muster rebuild users` as an operator runs it; PostgreSQL is all it needs."""

import asyncio
import base64
import os
from pathlib import Path
from typing import Any

import psycopg
import pytest

from projector.read_model import SHAPE
from tests.catalog import users_table
from tests.databases import as_role
from tests.histories import History, rows_of
from tests.integration.muster.conftest import Muster
from tests.rebuilds import ending, error, lines, rebuild
from tests.waiting import eventually

Owner = psycopg.Connection[dict[str, Any]]

# what COPY's text format has a meaning for, and what it has not
AWKWARD = [
    "tab\there",
    "line\nfeed",
    "carriage\rreturn",
    "back\\slash",
    "\\N",
    "\\.",
    "{\"quoted\", 'quotes'}",
    "",
    " ",
    "\x1d",
    "\x1e\x1d",
    "\x01\x7f",
    "\N{GRINNING FACE} \N{LATIN SMALL LETTER E WITH ACUTE}",
    "NULL",
]


def parked(owner: Owner) -> list[tuple[int, int, int | None]]:
    """Number of the user, version, build."""
    rows = owner.execute("SELECT user_id, version, build FROM read_model.parked ORDER BY user_id, build").fetchall()
    return [(row["user_id"].int - 1, row["version"], row["build"]) for row in rows]


@pytest.mark.usefixtures("peopled")
async def test_a_rebuild_makes_the_same_rows_and_the_declared_table(muster: Muster, owner: Owner) -> None:
    before, declared = rows_of(owner), users_table(owner)
    made = owner.execute("SELECT 'read_model.users'::regclass::oid AS oid").fetchall()
    owner.execute("INSERT INTO log.partitioning (partitions) VALUES (4)")
    told = await muster("rebuild", "users", "--operator", "ann@desk", "--json")
    assert ending(told) == {"events": 200, "users": 120, "differences": 0, "parked": 0, "swapped": True}
    assert owner.execute("SELECT 'read_model.users'::regclass::oid AS oid").fetchall() != made
    assert rows_of(owner) == before
    assert users_table(owner) == declared
    progress = owner.execute("SELECT partition, next_offset, position FROM read_model.progress ORDER BY 1").fetchall()
    assert [tuple(row.values()) for row in progress] == [(0, 200, 200), (1, 200, 200), (2, 200, 200), (3, -1, 200)]
    builds = owner.execute("SELECT state, shape, position FROM read_model.builds ORDER BY id").fetchall()
    assert [tuple(row.values()) for row in builds] == [("replaced", SHAPE, 0), ("live", SHAPE, 200)]
    operations = owner.execute("SELECT operator, operation, outcome FROM log.operations ORDER BY id").fetchall()
    assert [tuple(row.values()) for row in operations] == [
        ("ann@desk", "rebuild", "began"),
        ("ann@desk", "rebuild", "done"),
    ]


@pytest.mark.usefixtures("peopled")
async def test_progress_is_told_in_lines_of_json(muster: Muster) -> None:
    told = lines(await rebuild(muster))
    assert all(line.keys() == {"phase", "done", "total", "per_second", "eta_seconds"} for line in told)
    assert list(dict.fromkeys(line["phase"] for line in told)) == [
        "copying",
        "indexing",
        "catching-up",
        "comparing",
        "swapping",
    ]
    for phase, total in {"copying": 200, "comparing": 120, "swapping": 1}.items():
        of_phase = [line for line in told if line["phase"] == phase]
        assert of_phase[0]["done"] == 0
        assert of_phase[-1]["done"] == of_phase[-1]["total"] == total
        assert of_phase[-1]["eta_seconds"] == 0


async def test_what_text_holds_arrives_as_it_is(muster: Muster, history: History, owner: Owner) -> None:
    for number, text in enumerate(AWKWARD):
        history.create([number], display_name=text, attributes={"text": text, text: [text, None, 1.5, {"a": True}]})
        history.create([number + 100], roles=(text, "user"))
    history.project()
    before = rows_of(owner)
    assert ending(await rebuild(muster))["differences"] == 0
    assert rows_of(owner) == before


async def test_an_empty_log_gives_an_empty_table(muster: Muster, owner: Owner) -> None:
    assert ending(await rebuild(muster))["users"] == 0
    assert rows_of(owner) == {}


async def test_differences_are_told_without_what_is_personal(muster: Muster, peopled: History, owner: Owner) -> None:
    ids = {number: peopled.users[number].id for number in (1, 3, 5)}
    owner.execute("UPDATE read_model.users SET display_name = 'Mallory', status = 'disabled' WHERE id = %s", (ids[1],))
    owner.execute("DELETE FROM read_model.users WHERE id = %s", (ids[3],))
    owner.execute("UPDATE read_model.users SET version = 9 WHERE id = %s", (ids[5],))
    told = await rebuild(muster)
    assert ending(told)["differences"] == 3
    found = told.result["differing"]
    assert [(line["user_id"], line["columns"], line["live_version"], line["next_version"]) for line in found] == [
        (str(ids[1]), ["display_name", "status"], 1, 1),
        (str(ids[3]), found[1]["columns"], None, 1),
        (str(ids[5]), ["version"], 9, 1),
    ]
    assert "Mallory" not in told.stdout + told.stderr
    assert {row["version"] for number in ids if (row := rows_of(owner)[ids[number]])} == {1}


async def test_a_side_that_is_merely_behind_does_not_differ(muster: Muster, peopled: History, owner: Owner) -> None:
    peopled.create(range(200, 230))
    peopled.change(range(1, 60, 2), display_name="Later")
    assert ending(await rebuild(muster)) == {
        "events": 260,
        "users": 150,
        "differences": 0,
        "parked": 0,
        "swapped": True,
    }
    assert {row["display_name"] for row in rows_of(owner).values()} >= {"Later"}


async def test_a_dry_run_swaps_nothing_and_the_next_run_goes_on_with_it(
    muster: Muster, peopled: History, owner: Owner
) -> None:
    owner.execute("UPDATE read_model.users SET display_name = 'wrong'")
    assert ending(await rebuild(muster, "--dry-run")) == {
        "events": 200,
        "users": 120,
        "differences": 120,
        "parked": 0,
        "swapped": False,
    }
    assert {row["display_name"] for row in rows_of(owner).values()} == {"wrong"}
    peopled.create([500])
    told = await rebuild(muster)
    assert lines(told)[0] == {"phase": "resumed", "build": 2}
    assert "copying" not in {line["phase"] for line in lines(told)}
    assert ending(told)["users"] == 121
    assert len(rows_of(owner)) == 121


@pytest.mark.usefixtures("peopled")
async def test_a_build_is_dropped_on_demand(muster: Muster, owner: Owner) -> None:
    await rebuild(muster, "--dry-run")
    told = await muster("rebuild", "users", "--abandon")
    assert (told.status, told.stdout) == (0, "build 2 is dropped\n")
    assert owner.execute("SELECT to_regclass('read_model.users_next') AS next").fetchall() == [{"next": None}]
    assert owner.execute("SELECT count(*) AS count FROM read_model.build_ranges").fetchall() == [{"count": 0}]
    assert (await muster("rebuild", "users", "--abandon")).stdout == "nothing is being built\n"
    await rebuild(muster, "--dry-run")
    assert "resumed" not in {line["phase"] for line in lines(await rebuild(muster, "--fresh", "--dry-run"))}
    states = owner.execute("SELECT state FROM read_model.builds ORDER BY id").fetchall()
    assert [row["state"] for row in states] == ["live", "abandoned", "abandoned", "building"]


@pytest.mark.usefixtures("peopled")
async def test_a_build_of_another_table_is_begun_anew(muster: Muster, owner: Owner) -> None:
    await rebuild(muster, "--dry-run")
    owner.execute("UPDATE read_model.builds SET fingerprint = 'another' WHERE state = 'building'")
    told = await rebuild(muster)
    assert lines(told)[0]["phase"] == "copying"
    assert ending(told)["users"] == 120


@pytest.mark.usefixtures("peopled")
async def test_one_rebuild_at_a_time_and_the_second_is_told_who(
    muster: Muster,
    surroundings: dict[str, str],
    owner: Owner,
) -> None:
    first = asyncio.create_task(
        rebuild(muster, "--operator", "ann@desk", FAILPOINTS="rebuild.copied=pause", MUSTER_MODE="test")
    )

    def waits() -> int | None:
        found = owner.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'muster rebuild by ann@desk'")
        build = owner.execute("SELECT 1 FROM read_model.builds WHERE position IS NOT NULL AND state = 'building'")
        row = found.fetchone()
        return row["pid"] if row is not None and build.fetchone() else None

    process = await asyncio.to_thread(eventually, waits, what="the first one stands still")
    refused = await rebuild(muster)
    assert refused.status == 1
    assert error(refused).startswith(f"a rebuild is under way: muster rebuild by ann@desk (database process {process}")
    owner.execute("SELECT pg_terminate_backend(%s)", (process,))
    for stopped in _stopped(surroundings):
        os.kill(stopped, 9)
    assert (await first).status == -9
    assert ending(await rebuild(muster))["users"] == 120


def _stopped(surroundings: dict[str, str]) -> list[int]:
    """Processes of this test's deployment that stand still (SIGSTOP)."""
    topic = f"EVENTS_TOPIC={surroundings['EVENTS_TOPIC']}".encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stands = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "T"
                if stands and topic in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


async def test_an_event_that_nobody_can_open_holds_back_its_user_alone(
    muster: Muster, peopled: History, owner: Owner
) -> None:
    peopled.change([1], display_name="Second")
    peopled.change([1], display_name="Third")
    peopled.project()
    before = rows_of(owner)
    for version in (2, 3):
        peopled.damage(1, version)
    # this one has nothing else, and is changed while the build is under way
    peopled.damage(3, 1)
    assert ending(await rebuild(muster, "--dry-run"))["parked"] == 2
    peopled.change([5], display_name="Fine")
    peopled.damage(5, 2)
    told = await rebuild(muster)
    assert ending(told) == {"events": 203, "users": 119, "differences": 2, "parked": 3, "swapped": True}
    after = rows_of(owner)
    assert parked(owner) == [(1, 2, None), (3, 1, None), (5, 2, None)]
    assert (after[peopled.users[1].id]["version"], after[peopled.users[1].id]["display_name"]) == (1, "User 1")
    assert after[peopled.users[5].id]["version"] == 1
    assert peopled.users[3].id not in after
    special = {peopled.users[number].id for number in (1, 3, 5)}
    assert {k: v for k, v in after.items() if k not in special} == {k: v for k, v in before.items() if k not in special}


async def test_who_is_held_back_stays_so_from_the_same_version_on(
    muster: Muster, peopled: History, owner: Owner
) -> None:
    for name in ("Second", "Third"):
        peopled.change([1, 3], display_name=name)
    peopled.project()
    for number, version in ((1, 2), (3, 1)):
        park(owner, peopled, number, version)
    assert ending(await rebuild(muster))["users"] == 119
    after = rows_of(owner)
    assert after[peopled.users[1].id]["version"] == 1
    assert peopled.users[3].id not in after
    assert parked(owner) == [(1, 2, None), (3, 1, None)]


async def test_who_was_held_back_when_the_build_began_and_is_not_any_more_lacks_nothing(
    muster: Muster, peopled: History, owner: Owner
) -> None:
    peopled.change([1], display_name="Second")
    peopled.damage(3, 1)
    park(owner, peopled, 1, 2)
    await rebuild(muster, "--dry-run")
    peopled.change([1], display_name="Third")
    peopled.mend(3, 1)
    owner.execute("DELETE FROM read_model.parked WHERE build IS NULL")
    assert ending(await rebuild(muster))["parked"] == 0
    after = rows_of(owner)
    assert after[peopled.users[1].id]["display_name"] == "Third"
    assert after[peopled.users[3].id]["version"] == 1
    assert parked(owner) == []


def park(owner: Owner, history: History, number: int, version: int) -> None:
    owner.execute(
        "INSERT INTO read_model.parked (user_id, version, position, source, partition, reason)"
        " VALUES (%s, %s, 1, 'log', 0, 'planted')",
        (history.users[number].id, version),
    )


async def test_what_operators_discarded_is_passed_over_whenever_they_did(
    muster: Muster, peopled: History, owner: Owner
) -> None:
    def discard(number: int, version: int) -> None:
        owner.execute(
            "INSERT INTO log.discarded (position, user_id, version, operator, reason)"
            " SELECT position, user_id, version, 'ann', 'planted' FROM log.events WHERE user_id = %s AND version = %s",
            (peopled.users[number].id, version),
        )

    peopled.change([1, 3], display_name="Second")
    discard(1, 2)
    await rebuild(muster, "--dry-run")
    discard(3, 2)
    # all that they had
    discard(5, 1)
    peopled.change([7], display_name="Second")
    discard(7, 2)
    assert ending(await rebuild(muster))["swapped"]
    after = rows_of(owner)
    assert [after[peopled.users[number].id]["version"] for number in (1, 3, 7)] == [1, 1, 1]
    assert peopled.users[5].id not in after


async def test_a_row_that_the_table_does_not_take_holds_back_its_user_alone(
    muster: Muster, peopled: History, owner: Owner
) -> None:
    # by the constraint, by a type, and by an index alone: no page of a btree has room for it
    peopled.change([1], attributes=None)
    peopled.change([3], display_name="a\0b")
    too_long = base64.b64encode(os.urandom(6000)).decode().casefold()
    peopled.change([5, 7], email=f"{too_long}@example.com")
    peopled.change([7], email=f"{too_long}x@example.com")
    told = await rebuild(muster)
    assert ending(told)["parked"] == 4
    assert parked(owner) == [(1, 2, None), (3, 2, None), (5, 2, None), (7, 2, None)]
    reasons = {row["reason"] for row in owner.execute("SELECT reason FROM read_model.parked")}
    assert all(reason.startswith("the table does not take it: ") for reason in reasons)
    assert {rows_of(owner)[peopled.users[number].id]["version"] for number in (1, 3, 5, 7)} == {1}
    # and likewise what is met after the copy
    peopled.change([9], attributes=None)
    peopled.change([11], email=f"{too_long}@example.com")
    await rebuild(muster, "--dry-run")
    peopled.change([13], attributes=None)
    peopled.change([15], email=f"{too_long}@example.com")
    assert ending(await rebuild(muster))["users"] == 120
    assert [number for number, _, _ in parked(owner)] == [1, 3, 5, 7, 9, 11, 13, 15]


async def test_more_trouble_than_single_events_have_stops_it(muster: Muster, peopled: History, owner: Owner) -> None:
    for number in (1, 3, 5):
        peopled.damage(number, 1)
    told = await rebuild(muster, PARKED_LIMIT="2")
    assert told.status == 1
    assert error(told).startswith("3 users are held back over events that cannot be applied, more than PARKED_")
    assert len(rows_of(owner)) == 120
    outcome = owner.execute("SELECT outcome FROM log.operations ORDER BY id DESC LIMIT 1").fetchall()
    assert outcome == [{"outcome": "refused"}]


@pytest.mark.usefixtures("peopled")
async def test_another_key_fails_it_with_one_line(muster: Muster, owner: Owner) -> None:
    told = await rebuild(muster, KEK=base64.b64encode(os.urandom(32)).decode())
    assert told.status == 2
    assert error(told).startswith("this KEK is ")
    assert parked(owner) == []


async def test_without_a_database_there_is_one_line(muster: Muster) -> None:
    told = await muster("rebuild", "users", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    status, said = told.refusal
    assert status == 2
    assert said.startswith("muster: the database: ")
    assert len(said.splitlines()) == 1


@pytest.mark.usefixtures("peopled")
async def test_a_long_reader_is_waited_for_and_holds_nobody_up(
    muster: Muster,
    owner: Owner,
    database_url: str,
) -> None:
    with psycopg.connect(as_role(database_url, "muster_query")) as reader:
        reader.execute("SELECT count(*) FROM read_model.users")
        running = asyncio.create_task(rebuild(muster))

        def tried_again() -> bool:
            found = owner.execute(
                "SELECT phase FROM read_model.builds WHERE state = 'building' AND position IS NOT NULL"
            ).fetchall()
            return bool(found) and found[0]["phase"] == "catching-up"

        await asyncio.to_thread(eventually, tried_again, what="it comes to the swap")
        with psycopg.connect(as_role(database_url, "muster_query"), autocommit=True) as other:
            other.execute("SET statement_timeout = '1s'")
            for _ in range(200):
                assert other.execute("SELECT count(*) FROM read_model.users").fetchall() == [(120,)]
        assert not running.done()
        reader.commit()
    assert ending(await running)["swapped"]
