"""A database that is down, slow or cut off: a clear 503 in time, nothing half done, recovery by itself."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest

from command_api.app import create_app
from tests.apps import client_of
from tests.databases import MakeSettings, as_role
from tests.plain_http import PLAIN
from tests.processes import StartProcess
from tests.proxy import Proxy, proxy_to
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]

TIMEOUT = 1.0
# the bound on an answer, and room for a busy machine
BOUND = TIMEOUT + 4


async def post(client: httpx.AsyncClient, email: str, **headers: str) -> httpx.Response:
    began = time.monotonic()
    answer = await client.post("/users", json={"email": email}, headers=headers)
    assert time.monotonic() - began < BOUND
    return answer


def events(owner: Owner) -> int:
    row = owner.execute("SELECT count(*) AS count FROM log.events").fetchone()
    return 0 if row is None else int(row["count"])


def code_of(answer: httpx.Response) -> str:
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    return str(answer.json()["errors"][0]["code"])


@asynccontextmanager
async def behind_a_proxy(
    make_settings: MakeSettings, database_url: str, *, write_timeout: float = TIMEOUT
) -> AsyncGenerator[tuple[Proxy, httpx.AsyncClient]]:
    """A command API whose way to the database can be cut."""
    async with proxy_to(database_url) as (proxy, url):
        settings = make_settings(database_url=as_role(url, "muster_command"), write_timeout=write_timeout)
        async with client_of(create_app(settings)) as client:
            yield proxy, client


async def append_waits(owner: Owner) -> bool:
    row = owner.execute(
        "SELECT count(*) AS waiting FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND query LIKE '%%log.append%%' AND datname = current_database()",
        (),
    ).fetchone()
    return row is not None and row["waiting"] > 0


async def test_a_database_that_is_down_gives_503_and_recovery_needs_no_restart(
    make_settings: MakeSettings, database_url: str, owner: Owner
) -> None:
    async with behind_a_proxy(make_settings, database_url) as (proxy, client):
        assert (await post(client, "a@example.com")).status_code == 201
        await proxy.refuse()
        assert code_of(await post(client, "b@example.com")) in {"unavailable", "outcome_unknown"}
        assert code_of(await post(client, "c@example.com")) == "unavailable"
        unready = await client.get("/readyz")
        assert unready.status_code == 503
        assert unready.json()["errors"][0]["code"] == "database"
        await proxy.start()

        async def works() -> bool:
            return (await client.post("/users", json={"email": "d@example.com"})).status_code == 201

        await aeventually(works, what="writes work again")
        assert (await client.get("/readyz")).status_code == 200
    assert events(owner) == 2


async def test_a_lost_answer_is_called_unknown_and_is_safe_to_repeat(
    make_settings: MakeSettings, database_url: str, owner: Owner
) -> None:
    async with behind_a_proxy(make_settings, database_url) as (proxy, client):
        # the connections stand, so that only the append's own answer is lost
        assert (await post(client, "a@example.com")).status_code == 201
        proxy.freeze_answers()
        assert code_of(await post(client, "b@example.com")) == "outcome_unknown"
        await aeventually(lambda: asyncio.to_thread(lambda: events(owner) == 2), what="the event is there")
        proxy.cut()
        proxy.thaw()
        refused = await client.post("/users", json={"email": "b@example.com"})
        assert refused.status_code == 409


async def test_an_unknown_outcome_is_settled_by_the_idempotency_key(
    make_settings: MakeSettings, database_url: str, owner: Owner
) -> None:
    async with behind_a_proxy(make_settings, database_url, write_timeout=20) as (proxy, client):
        assert (await post(client, "a@example.com")).status_code == 201
        with psycopg.connect(database_url) as blocker:
            blocker.execute("SELECT * FROM log.head FOR UPDATE")
            sent = asyncio.create_task(post(client, "b@example.com", **{"Idempotency-Key": "b"}))
            await aeventually(lambda: append_waits(owner), what="an append waits")
            # the caller hears nothing more of an append that the server goes on with
            proxy.cut()
            assert code_of(await sent) == "outcome_unknown"
        await aeventually(lambda: asyncio.to_thread(lambda: events(owner) == 2), what="the event is there")
        again = await post(client, "b@example.com", **{"Idempotency-Key": "b"})
        assert again.status_code == 201
        assert again.headers["idempotency-replayed"] == "true"
    assert events(owner) == 2


async def test_a_slow_database_gives_503_in_time_and_says_what_was_not_written(
    make_settings: MakeSettings, database_url: str
) -> None:
    async with client_of(create_app(make_settings(write_timeout=TIMEOUT))) as client:
        assert (await post(client, "a@example.com")).status_code == 201
        emails = [f"user{number}@example.com" for number in range(8)]
        with psycopg.connect(database_url) as blocker:
            blocker.execute("SELECT * FROM log.head FOR UPDATE")
            codes = [code_of(answer) for answer in await asyncio.gather(*(post(client, email) for email in emails))]
            assert set(codes) <= {"unavailable", "outcome_unknown"}
        for email, code in zip(emails, codes, strict=True):
            again = await post(client, email)
            # what was said not to be written is not there; of the rest it was said that nobody knows
            assert again.status_code == 201 or (code == "outcome_unknown" and again.status_code == 409)


async def test_a_full_queue_refuses_at_once(make_settings: MakeSettings, database_url: str, owner: Owner) -> None:
    async with client_of(create_app(make_settings(write_queue_limit=4, write_timeout=20))) as client:
        assert (await post(client, "a@example.com")).status_code == 201
        with psycopg.connect(database_url) as blocker:
            blocker.execute("SELECT * FROM log.head FOR UPDATE")
            sent = {
                asyncio.create_task(client.post("/users", json={"email": f"user{number}@example.com"}))
                for number in range(12)
            }
            refused: set[asyncio.Task[httpx.Response]] = set()
            while len(refused) < 8:
                refused, _ = await asyncio.wait(sent - refused, return_when=asyncio.FIRST_COMPLETED, timeout=10)
                refused = {task for task in sent if task.done()}
            assert {code_of(task.result()) for task in refused} == {"overloaded"}
        accepted = await asyncio.gather(*(sent - refused))
        assert [answer.status_code for answer in accepted] == [201] * 4
    assert events(owner) == 5


@pytest.mark.broker
async def test_a_graceful_stop_answers_every_accepted_request(
    start_process: StartProcess, database_url: str, owner: Owner
) -> None:
    process = start_process("command_api").wait_until_ready()
    async with httpx.AsyncClient(
        base_url=process.url, headers=dict(process.client().headers), timeout=30, verify=PLAIN, trust_env=False
    ) as client:
        with psycopg.connect(database_url) as blocker:
            blocker.execute("SELECT * FROM log.head FOR UPDATE")
            waiting = [
                asyncio.create_task(client.post("/users", json={"email": f"user{number}@example.com"}))
                for number in range(20)
            ]

            await aeventually(lambda: append_waits(owner), what="an append waits")
            process.popen.terminate()
            blocker.rollback()
        answers = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in answers] == [201] * 20
    assert await asyncio.to_thread(process.wait_until_dead) == 0
    assert events(owner) == 20
