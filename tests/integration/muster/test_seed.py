import signal
import subprocess
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg
import pytest

from events.keyring import open_keyring
from events.reader import Reader
from events.recording import Position
from muster.population import Block, Population
from runtime.database import Session
from tests.calls import codes, create
from tests.databases import MakeSettings
from tests.integration.muster.conftest import MUSTER, Muster
from tests.waiting import eventually

Owner = psycopg.Connection[dict[str, Any]]


def row(owner: Owner, query: LiteralString) -> dict[str, Any]:
    found = owner.execute(query).fetchone()
    assert found is not None
    return found


async def seeded(muster: Muster, *options: str) -> dict[str, Any]:
    told = await muster("seed", "--json", *options)
    assert told.status == 0, told.stderr
    return told.result


async def test_the_log_holds_the_population_in_order(muster: Muster, owner: Owner, make_settings: MakeSettings) -> None:
    told = await seeded(muster, "200", "--seed", "5")
    assert (told["users"], told["events"], told["first"], told["last"]) == (200, 300, 1, 300)
    settings = make_settings()
    session = Session(settings.database_url.get_secret_value(), application="test", timeout=30)
    reader = Reader(session, open_keyring(settings), timeout=30, queue_limit=10)
    found = [await reader.at(Position(position)) for position in range(1, 301)]
    await reader.close()
    await session.close()
    expected = [happening.event for happening in Block(Population(seed=5, first=1, users=200), 0).happenings()]
    opened = [one for one in found if one is not None]
    assert [one.event for one in opened] == expected
    assert [one.position for one in opened] == list(range(1, 301))
    assert {one.metadata.actor.subject for one in opened} == {"muster seed"}
    assert [one.recorded_at for one in opened] == sorted(one.recorded_at for one in opened)
    assert row(owner, "SELECT recorded_at FROM log.head")["recorded_at"] == opened[-1].recorded_at


async def test_living_users_hold_their_addresses_and_everybody_has_a_key(muster: Muster, owner: Owner) -> None:
    await seeded(muster, "400")
    deleted = row(owner, "SELECT count(*) AS count FROM log.events WHERE type = 'UserDeleted'")["count"]
    assert deleted > 0
    assert row(owner, "SELECT count(*) AS count FROM log.email_claims")["count"] == 400 - deleted
    assert row(owner, "SELECT count(*) AS count FROM log.user_keys")["count"] == 400


async def test_it_goes_on_after_what_the_log_has_and_the_api_goes_on_after_it(
    muster: Muster, owner: Owner, commands: httpx.AsyncClient
) -> None:
    await create(commands, "before@example.com")
    head = row(owner, "SELECT recorded_at FROM log.head")
    told = await seeded(muster, "10")
    assert (told["first"], told["last"]) == (2, 16)
    assert row(owner, "SELECT recorded_at FROM log.head") == head
    email = next(Block(Population(seed=1, first=2, users=10), 0).happenings()).event.user.email
    assert "email_taken" in codes(await commands.post("/users", json={"email": email.upper()}), 409)
    living = row(
        owner,
        "SELECT user_id FROM log.events e WHERE type = 'UserCreated' AND position > 1"
        " AND NOT EXISTS (SELECT 1 FROM log.events d WHERE d.user_id = e.user_id AND d.type = 'UserDeleted') LIMIT 1",
    )["user_id"]
    changed = await commands.patch(f"/users/{living}", json={"display_name": "Somebody Else"})
    assert changed.status_code == 200, changed.text
    assert changed.headers["event-position"] == "17"


async def test_a_second_run_adds_other_users(muster: Muster, owner: Owner) -> None:
    await seeded(muster, "20")
    told = await seeded(muster, "20")
    assert (told["first"], told["last"]) == (31, 60)
    assert row(owner, "SELECT count(DISTINCT user_id) AS count FROM log.events")["count"] == 40


async def test_production_is_not_seeded(muster: Muster, owner: Owner) -> None:
    status, line = (await muster("seed", "5", MUSTER_MODE="production")).refusal
    assert status == 1
    assert "production" in line
    assert row(owner, "SELECT position FROM log.head")["position"] == 0


async def test_a_database_that_is_away_is_one_line(muster: Muster) -> None:
    status, line = (await muster("seed", "5", DATABASE_URL="postgresql://muster_command@127.0.0.1:1/none")).refusal
    assert status == 2
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_ended_half_way_it_leaves_whole_transactions_and_no_worker(
    surroundings: dict[str, str], owner: Owner, signum: signal.Signals, status: int
) -> None:
    with subprocess.Popen(
        [str(MUSTER), "seed", "80000", "--workers", "2"],
        env=surroundings,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as seeding:
        eventually(lambda: row(owner, "SELECT position FROM log.head")["position"] > 0, timeout=60)
        workers = children(seeding.pid)
        assert len(workers) >= 2
        seeding.send_signal(signum)
        _, errors = seeding.communicate(timeout=60)
    assert seeding.returncode == status
    assert b"Traceback" not in errors
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), what="the workers end")
    eventually(
        lambda: (
            row(owner, "SELECT count(*) AS count FROM pg_stat_activity WHERE application_name = 'muster seed'")["count"]
            == 0
        ),
        what="the server has noticed",
    )
    counted = row(
        owner, "SELECT count(*) AS events, max(position) AS last, count(DISTINCT user_id) AS users FROM log.events"
    )
    assert counted["events"] == counted["last"] == row(owner, "SELECT position FROM log.head")["position"] < 120_000
    assert row(owner, "SELECT count(*) AS count FROM log.user_keys")["count"] == counted["users"]


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.parametrize("arguments", [("0",), ("-3",), ("many",), ("5", "--workers", "0")])
async def test_what_is_no_number_of_users_is_said(muster: Muster, arguments: tuple[str, ...]) -> None:
    assert (await muster("seed", *arguments)).status == 2
