"""`muster keys rotate-kek`, and processes that know other KEKs than the log has."""

import asyncio
import signal
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from command_api.app import create_app
from identity.signing_keys import wrapped_key
from query_api.app import create_app as create_query_app
from runtime.settings import Settings
from tests.apps import client_of
from tests.calls import codes, create
from tests.databases import MakeSettings, as_role
from tests.histories import History
from tests.integration.muster.conftest import Muster
from tests.processes import StartProcess
from tests.rotations import NEW, NEW_KEK, OLD, keks, meanwhile, variables
from tests.tokens import KEK, SIGNING_KEY
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]

ROTATED = variables(keks(NEW_KEK, KEK))


def wrappers(owner: Owner) -> dict[str, int]:
    """How many living keys each KEK wraps."""
    rows = owner.execute("SELECT kek_id, count(*) AS n FROM log.user_keys WHERE wrapped IS NOT NULL GROUP BY kek_id")
    return {row["kek_id"]: row["n"] for row in rows.fetchall()}


def signers(owner: Owner) -> set[str]:
    return {row["kek_id"] for row in owner.execute("SELECT kek_id FROM identity.signing_keys").fetchall()}


async def rename(client: httpx.AsyncClient, user: dict[str, Any], name: str) -> int:
    return (await client.patch(f"/users/{user['id']}", json={"display_name": name})).status_code


async def test_every_key_is_wrapped_anew_and_the_former_kek_is_needed_no_more(
    muster: Muster, history: History, make_settings: MakeSettings, owner: Owner
) -> None:
    history.create(range(1200))
    told = await muster("keys", "rotate-kek", "--json", "--check", **ROTATED)
    assert (told.status, told.result["keys"]) == (1, {OLD.id: 1201})

    told = await muster("keys", "rotate-kek", "--json", "--operator", "grace", **ROTATED)
    assert told.status == 0, told.stderr
    assert told.result == {"kek": NEW.id, "users": 1200, "signing_keys": 1, "damaged": 0}
    assert (wrappers(owner), signers(owner)) == ({NEW.id: 1200}, {NEW.id})
    assert [line["event"] for line in told.records if "event" in line] == ["keys.kek_rotated"]

    alone = variables(keks(NEW_KEK))
    told = await muster("keys", "rotate-kek", "--json", "--check", **alone)
    assert (told.status, told.result["keys"]) == (0, {NEW.id: 1201})
    assert (await muster("keys", "rotate-kek", "--json", **alone)).result["users"] == 0
    async with client_of(create_app(make_settings(**keks(NEW_KEK)))) as commands:
        assert await rename(commands, {"id": UUID(int=7)}, "Renamed") == 200
    done = (await muster("operations", "--operation", "keys", "--json")).result["operations"][-1]
    assert (done["operator"], done["operation"], done["outcome"]) == ("grace", "keys.rotate-kek", "done")
    assert done["parameters"] == {"from": [OLD.id], "to": NEW.id}


async def test_three_steps_take_two_processes_over_while_both_read_what_the_other_wrote(
    muster: Muster, make_settings: MakeSettings, owner: Owner
) -> None:
    users: list[dict[str, Any]] = []

    async def both(first: Settings, second: Settings) -> None:
        async with client_of(create_app(first)) as one, client_of(create_app(second)) as other:
            made = [await create(client, f"user{len(users)}-{n}@example.com") for n, client in enumerate((one, other))]
            users.extend(made)
            for client in (one, other):
                for user in users:
                    assert await rename(client, user, f"Renamed {len(users)} {id(client)}") == 200

    before, aware = make_settings(**keks(KEK)), make_settings(**keks(KEK, NEW_KEK))
    switched, after = make_settings(**keks(NEW_KEK, KEK)), make_settings(**keks(NEW_KEK))
    await both(before, aware)
    await both(aware, switched)
    assert wrappers(owner) == {OLD.id: 3, NEW.id: 1}
    assert (await muster("keys", "rotate-kek", "--json", **ROTATED)).status == 0
    assert wrappers(owner) == {NEW.id: 4}
    await both(switched, after)
    async with client_of(create_query_app(make_settings("muster_query", **keks(NEW_KEK)))) as queries:
        for user in users:
            history = (await queries.get(f"/users/{user['id']}/history")).json()
            assert len(history["events"]) > 1


async def test_writers_go_on_while_keys_are_wrapped_anew(
    muster: Muster, history: History, make_settings: MakeSettings, owner: Owner
) -> None:
    history.create(range(3000))
    written = 0

    async with client_of(create_app(make_settings(**keks(NEW_KEK, KEK)))) as commands:

        async def write(enough: asyncio.Event) -> None:
            nonlocal written
            while not enough.is_set():
                user = await create(commands, f"new{written}@example.com")
                assert await rename(commands, user, "Renamed") == 200
                assert await rename(commands, {"id": UUID(int=written % 3000 + 1)}, f"Renamed {written}") == 200
                written += 1

        async with meanwhile(write):
            told = await muster("keys", "rotate-kek", "--json", **ROTATED)
    assert told.status == 0, told.stderr
    assert written > 10
    assert wrappers(owner) == {NEW.id: 3000 + written}


async def test_a_run_that_is_killed_is_gone_on_with(muster: Muster, history: History, owner: Owner) -> None:
    history.create(range(1800))
    killed = await muster("keys", "rotate-kek", "--json", FAILPOINTS="keys.rewrapped=kill@2", **ROTATED)
    assert killed.status == -signal.SIGKILL
    assert wrappers(owner) == {OLD.id: 800, NEW.id: 1000}
    told = await muster("keys", "rotate-kek", "--json", **ROTATED)
    assert (told.status, told.result["users"]) == (0, 800)
    assert wrappers(owner) == {NEW.id: 1800}
    outcomes = owner.execute("SELECT outcome FROM log.operations ORDER BY id").fetchall()
    assert [row["outcome"] for row in outcomes] == ["began", "abandoned", "began", "done"]


async def test_a_tombstone_and_a_key_that_was_altered_are_left_alone(
    muster: Muster, history: History, owner: Owner
) -> None:
    history.create(range(4))
    owner.execute("UPDATE log.user_keys SET wrapped = NULL, erased_at = now() WHERE user_id = %s", (UUID(int=1),))
    owner.execute("UPDATE log.user_keys SET wrapped = %s WHERE user_id = %s", (bytes(40), UUID(int=2)))
    told = await muster("keys", "rotate-kek", "--json", **ROTATED)
    assert (told.status, "1 keys do not open" in told.stderr) == (1, True)
    rows = owner.execute("SELECT wrapped, kek_id FROM log.user_keys ORDER BY user_id").fetchall()
    assert [row["kek_id"] for row in rows] == [OLD.id, OLD.id, NEW.id, NEW.id]
    assert (rows[0]["wrapped"], rows[1]["wrapped"]) == (None, bytes(40))


async def test_a_key_that_is_erased_meanwhile_stays_erased(
    muster: Muster, history: History, owner: Owner, database_url: str
) -> None:
    history.create(range(3))
    waiting = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'muster keys' AND wait_event_type = 'Lock'"

    async def blocked() -> bool:
        return bool(owner.execute(waiting).fetchall())

    with psycopg.connect(database_url) as erasing:
        erasing.execute("UPDATE log.user_keys SET wrapped = NULL, erased_at = now() WHERE user_id = %s", (UUID(int=2),))
        rotating = asyncio.ensure_future(muster("keys", "rotate-kek", "--json", **ROTATED))
        await aeventually(blocked, what="the rotation waits for the erasure")
        erasing.commit()
    assert (await rotating).status == 0
    rows = owner.execute("SELECT wrapped IS NULL AS erased FROM log.user_keys ORDER BY user_id").fetchall()
    assert [row["erased"] for row in rows] == [False, True, False]
    assert wrappers(owner) == {NEW.id: 2}


async def test_a_kek_that_nobody_knows_is_refused_and_so_are_two_at_once(
    muster: Muster, history: History, owner: Owner
) -> None:
    history.create(range(2))
    told = await muster("keys", "rotate-kek", "--json", **variables(keks(NEW_KEK)))
    assert (told.status, OLD.id in told.stderr, "KEKS_KNOWN" in told.stderr) == (2, True, True)
    owner.execute("SELECT pg_advisory_lock(7203314)")
    assert (await muster("keys", "rotate-kek", **ROTATED)).refusal[0] == 1
    assert wrappers(owner) == {OLD.id: 2}


@pytest.mark.parametrize("name", ["command_api", "query_api", "projector"])
def test_a_process_without_the_kek_of_the_log_does_not_start(
    name: str, start_process: StartProcess, history: History
) -> None:
    history.create(range(3))
    process = start_process(name, broker=False, **keks(NEW_KEK))
    assert process.wait_until_dead() == 2
    (line,) = process.log.read_text().splitlines()
    assert OLD.id in line
    assert "set KEK or KEK_FILE to the one this log was begun with, or add it to KEKS_KNOWN" in line
    assert NEW_KEK.hex() not in line


async def test_neither_does_a_relay_and_the_doctor_says_why(muster: Muster, history: History) -> None:
    history.create(range(1))
    wrong = variables(keks(NEW_KEK))
    told = await muster("relay", **wrong)
    assert (told.status, "set KEK or KEK_FILE" in told.stderr) == (2, True)
    check = await log_check(muster, wrong)
    assert (check["state"], OLD.id in check["found"]) == ("failed", True)
    check = await log_check(muster, ROTATED)
    assert (check["state"], check["remedy"]) == ("warning", "run `muster keys rotate-kek`")


async def log_check(muster: Muster, settings: dict[str, str | None]) -> dict[str, Any]:
    """What the doctor says of the log."""
    told = await muster("doctor", "--json", **settings)
    return next(check for check in told.result["checks"] if check["name"] == "log")


async def test_a_writer_that_started_before_the_database_writes_nothing_that_others_cannot_read(
    history: History, make_settings: MakeSettings, owner: Owner
) -> None:
    """The app without the check of its start, as it is when the database was away then."""
    history.create(range(1))
    key = wrapped_key(SIGNING_KEY, NEW)
    owner.execute("UPDATE identity.signing_keys SET wrapped = %s, kek_id = %s", (key.wrapped, NEW.id))
    async with client_of(create_app(make_settings(**keks(NEW_KEK)))) as commands:
        assert (await commands.get("/sessions")).status_code == 200
        answer = await commands.post("/users", json={"email": "ada@example.com"})
        assert codes(answer, 503) == ["unavailable"]
    assert (history.head, wrappers(owner)) == (1, {OLD.id: 1})


def test_looking_for_keks_costs_the_same_however_many_keys_there_are(owner: Owner) -> None:
    owner.execute(
        "INSERT INTO log.user_keys (user_id, wrapped, kek_id)"
        " SELECT gen_random_uuid(), '\\x00', CASE WHEN n % 2 = 0 THEN 'aaaa' ELSE 'bbbb' END"
        " FROM generate_series(1, 50000) AS n"
    )
    assert [row["kek_id"] for row in owner.execute("SELECT * FROM log.keks_in_use() AS u (kek_id)").fetchall()] == [
        "aaaa",
        "bbbb",
    ]
    plan = owner.execute(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM log.keks_in_use() AS u (kek_id)"
    ).fetchall()[0]["QUERY PLAN"][0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 50


def test_the_command_role_wraps_keys_anew_and_neither_makes_nor_undoes_a_tombstone(
    history: History, database_url: str, owner: Owner
) -> None:
    history.create(range(2))
    owner.execute("UPDATE log.user_keys SET wrapped = NULL, erased_at = now() WHERE user_id = %s", (UUID(int=1),))
    with psycopg.connect(as_role(database_url, "muster_command"), autocommit=True) as command:
        for statement in (
            "UPDATE log.user_keys SET wrapped = NULL WHERE user_id = '00000000-0000-0000-0000-000000000002'",
            "UPDATE log.user_keys SET wrapped = '\\x00' WHERE user_id = '00000000-0000-0000-0000-000000000001'",
        ):
            with pytest.raises(psycopg.errors.CheckViolation):
                command.execute(statement.encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            command.execute("UPDATE log.user_keys SET erased_at = now()")
