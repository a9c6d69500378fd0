import asyncio
import time
from typing import Any

import httpx
import psycopg
import pytest

from events.partitioning import partition_of
from query_api.app import create_app
from tests.apps import client_of
from tests.calls import codes, create, errors
from tests.databases import PARTITIONS, MakeSettings, as_role
from tests.people import ADA, ADA_ID
from tests.proxy import proxy_to
from tests.read_model import ReadModel
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]
PATH = f"/users/{ADA_ID}"
HOME = partition_of(ADA_ID, PARTITIONS)
OTHERS = [partition for partition in range(PARTITIONS) if partition != HOME]


async def asked(queries: httpx.AsyncClient, path: str, position: int, *prefer: str) -> httpx.Response:
    headers = [("Min-Position", str(position)), *(("Prefer", line) for line in prefer)]
    return await queries.get(path, headers=headers)


async def test_a_model_that_has_it_answers_at_once(queries: httpx.AsyncClient, model: ReadModel) -> None:
    model.hold([ADA])
    model.stand(HOME, offset=5, position=7)
    for position in (0, 1, 7):
        assert (await asked(queries, PATH, position)).status_code == 200


async def test_a_user_depends_on_their_own_partition_alone(queries: httpx.AsyncClient, model: ReadModel) -> None:
    model.hold([ADA])
    model.stand(HOME, offset=5, position=7)
    assert (await asked(queries, PATH, 7)).status_code == 200
    assert codes(await asked(queries, "/users", 7), 503) == ["not_fresh_yet"]
    for partition in OTHERS:
        model.stand(partition, offset=1, position=7)
    assert (await asked(queries, "/users", 7)).status_code == 200


async def test_what_is_not_there_yet_is_told_with_the_lag(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    for number in range(5):
        await create(commands, f"user{number}@example.com")
    for partition in range(PARTITIONS):
        model.stand(partition, offset=1, position=2)
    answer = await asked(queries, "/users", 5)
    assert [(error["code"], error["parameter"]) for error in errors(answer, 503)] == [("not_fresh_yet", "Min-Position")]
    assert answer.headers["retry-after"] == "1"
    told = answer.json()
    assert (told["wanted"], told["reached"], told["lag_events"]) == (5, 2, 3)
    assert 0 < told["lag_seconds"] < 60


async def test_a_position_that_is_not_in_the_log_is_told_as_such(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    await create(commands)
    for partition in range(PARTITIONS):
        model.stand(partition, offset=1, position=1)
    for path in ("/users", PATH):
        answer = await asked(queries, path, 2**63 - 1)
        assert codes(answer, 503) == ["not_fresh_yet"]
        assert answer.json()["detail"].startswith("The log ends at position 1:")
        assert (answer.json()["lag_events"], answer.json()["lag_seconds"]) == (0, 0)


async def test_a_model_that_never_began_is_not_fresh(queries: httpx.AsyncClient) -> None:
    assert codes(await asked(queries, "/users", 1), 503) == ["not_fresh_yet"]
    assert (await asked(queries, "/users", 0)).status_code == 200


async def test_idle_partitions_hold_nobody_up(queries: httpx.AsyncClient, model: ReadModel) -> None:
    model.stand(HOME, offset=5, position=9)
    for partition in OTHERS:
        model.stand(partition, offset=3, position=4)
        model.publish(partition, offset=3, position=9)
    assert (await asked(queries, "/users", 9)).status_code == 200
    model.publish(OTHERS[0], offset=4, position=9)
    assert codes(await asked(queries, "/users", 9), 503) == ["not_fresh_yet"]


async def test_what_was_published_elsewhere_does_not_count(queries: httpx.AsyncClient, model: ReadModel) -> None:
    elsewhere = ReadModel(model.owner, "another.topic")
    for partition in range(PARTITIONS):
        model.stand(partition, offset=3, position=4)
        elsewhere.publish(partition, offset=3, position=9)
    assert codes(await asked(queries, "/users", 9), 503) == ["not_fresh_yet"]


@pytest.mark.parametrize("prefer", [("wait=20",), ("respond-async, wait=20",), ("return=minimal", "wait = 20")])
async def test_a_caller_who_prefers_to_wait_is_answered_when_it_comes(
    queries: httpx.AsyncClient, model: ReadModel, prefer: tuple[str, ...]
) -> None:
    model.hold([ADA])
    model.stand(HOME, offset=1, position=6)
    waiting = asyncio.create_task(asked(queries, PATH, 7, *prefer))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    model.stand(HOME, offset=2, position=7)
    answer = await waiting
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"


@pytest.mark.parametrize(
    ("prefer", "at_least", "at_most"), [("wait=1", 1.0, 1.9), ("wait=0", 0.0, 0.5), ("handling=strict", 0.0, 0.5)]
)
async def test_a_wait_ends_when_it_was_said_to(
    queries: httpx.AsyncClient, prefer: str, at_least: float, at_most: float
) -> None:
    began = time.monotonic()
    assert codes(await asked(queries, "/users", 1, prefer), 503) == ["not_fresh_yet"]
    assert at_least <= time.monotonic() - began <= at_most


async def test_waiting_needs_no_preference_when_nothing_is_asked_for(
    queries: httpx.AsyncClient, model: ReadModel
) -> None:
    model.hold([ADA])
    answer = await queries.get(PATH, headers={"Prefer": "wait=10"})
    assert answer.status_code == 200
    assert "preference-applied" not in answer.headers


async def test_those_who_wait_lock_nothing(queries: httpx.AsyncClient, model: ReadModel, owner: Owner) -> None:
    model.stand(HOME, offset=1, position=6)
    waiting = [asyncio.create_task(asked(queries, PATH, 7, "wait=20")) for _ in range(50)]
    await asyncio.sleep(0.1)
    open_transactions = owner.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND state LIKE 'idle in transaction%'"
        " AND datname = current_database()"
    ).fetchall()
    assert open_transactions == [{"count": 0}]
    model.stand(HOME, offset=2, position=7)
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {404}


async def test_each_of_those_who_wait_is_answered_when_theirs_comes(
    queries: httpx.AsyncClient, model: ReadModel
) -> None:
    for partition in range(PARTITIONS):
        model.stand(partition, offset=1, position=6)

    def ask(path: str, position: int) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(asked(queries, path, position, "wait=20"))

    users = [ask(PATH, position) for position in (7, 8, 9)]
    everybody = ask("/users", 7)
    gone = ask(PATH, 9)
    await asyncio.sleep(0.2)
    gone.cancel()
    model.stand(HOME, offset=2, position=8)
    assert {answer.status_code for answer in await asyncio.gather(*users[:2])} == {404}
    # who comes while others wait is told at once of what is there
    assert (await asked(queries, PATH, 8, "wait=20")).status_code == 404
    assert [users[2].done(), everybody.done()] == [False, False]
    for partition in OTHERS:
        model.stand(partition, offset=2, position=7)
    assert (await everybody).status_code == 200
    assert not users[2].done()
    model.stand(HOME, offset=3, position=9)
    assert (await users[2]).status_code == 404


async def test_those_who_wait_are_told_of_a_database_that_is_gone(
    make_settings: MakeSettings, database_url: str, model: ReadModel
) -> None:
    model.stand(HOME, offset=1, position=6)
    async with proxy_to(database_url) as (proxy, url):
        settings = make_settings("muster_query", database_url=as_role(url, "muster_query"), read_timeout=1)
        async with client_of(create_app(settings)) as queries:
            # a token that was never seen before could not be verified without the database
            assert (await asked(queries, PATH, 6)).status_code == 404
            waiting = [asyncio.create_task(asked(queries, PATH, 7, "wait=20")) for _ in range(20)]
            await asyncio.sleep(0.2)
            assert not any(one.done() for one in waiting)
            await proxy.refuse()
            for answer in await asyncio.gather(*waiting):
                assert codes(answer, 503) == ["unavailable"]
            await proxy.start()

            async def back() -> bool:
                return (await asked(queries, PATH, 6)).status_code == 404

            await aeventually(back, what="the database is back")
            again = asyncio.create_task(asked(queries, PATH, 7, "wait=20"))
            model.stand(HOME, offset=2, position=7)
            assert (await again).status_code == 404


@pytest.mark.parametrize("position", ["-1", "x", "1.5", "", str(2**63), "9" * 5000])
async def test_a_position_that_is_none_is_a_wrong_parameter(queries: httpx.AsyncClient, position: str) -> None:
    answer = await queries.get(PATH, headers={"Min-Position": position})
    assert [error["parameter"] for error in errors(answer, 422)] == ["Min-Position"]
