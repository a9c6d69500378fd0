"""Many writers at once, through two processes of the command API, on real Postgres."""

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from tests.plain_http import PLAIN
from tests.processes import Process, StartProcess
from tests.tokens import authorized

RACERS = 200


@pytest.fixture
def two_writers(start_process: StartProcess) -> tuple[Process, Process]:
    first, second = start_process("command_api", broker=False), start_process("command_api", broker=False)
    return first.wait_until_ready(), second.wait_until_ready()


async def race(writers: tuple[Process, Process], method: str, path: str, **request: Any) -> list[httpx.Response]:  # noqa: ANN401 - httpx's own
    limits = httpx.Limits(max_connections=RACERS)
    async with httpx.AsyncClient(
        headers=authorized(), timeout=60, limits=limits, verify=PLAIN, trust_env=False
    ) as client:
        return await asyncio.gather(
            *(
                client.request(method, f"{writer.url}{path}", **request)
                for writer, _ in zip(itertools.cycle(writers), range(RACERS), strict=False)
            )
        )


@contextmanager
def watching_positions(database_url: str) -> Generator[None]:
    """Poll the log all the while: what was seen must stay a prefix of what is seen next."""
    done, surprises = threading.Event(), list[str]()

    def watch() -> None:
        seen = 0
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not done.is_set():
                behind = connection.execute("SELECT count(*) FROM log.events WHERE position <= %s", (seen,)).fetchone()
                if behind != (seen,):
                    surprises.append(f"{behind} events at or before position {seen}")
                newest = connection.execute("SELECT coalesce(max(position), 0) FROM log.events").fetchone()
                seen = newest[0] if newest is not None else 0

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert surprises == []


def positions(owner: psycopg.Connection[dict[str, Any]]) -> list[int]:
    return [row["position"] for row in owner.execute("SELECT position FROM log.events ORDER BY position")]


async def test_of_many_creations_of_one_email_one_wins(
    two_writers: tuple[Process, Process], database_url: str, owner: psycopg.Connection[dict[str, Any]]
) -> None:
    with watching_positions(database_url):
        answers = await race(two_writers, "POST", "/users", json={"email": "one@example.com"})
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: RACERS - 1}
    assert positions(owner) == [1]


async def test_of_many_updates_of_one_version_one_wins(
    two_writers: tuple[Process, Process], database_url: str, owner: psycopg.Connection[dict[str, Any]]
) -> None:
    created = await create(two_writers[0], "one@example.com")
    with watching_positions(database_url):
        answers = await race(
            two_writers,
            "PATCH",
            created.headers["location"],
            json={"display_name": "Winner"},
            headers={"If-Match": '"1"'},
        )
    assert Counter(answer.status_code for answer in answers) == {200: 1, 412: RACERS - 1}
    assert positions(owner) == [1, 2]


async def test_without_a_precondition_every_update_takes_effect(
    two_writers: tuple[Process, Process], owner: psycopg.Connection[dict[str, Any]]
) -> None:
    created = await create(two_writers[0], "one@example.com")
    url = created.headers["location"]
    async with httpx.AsyncClient(headers=authorized(), timeout=60, verify=PLAIN, trust_env=False) as client:
        answers = await asyncio.gather(
            *(
                client.patch(f"{two_writers[number % 2].url}{url}", json={"attributes": {f"n{number}": number}})
                for number in range(40)
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    versions = sorted(answer.json()["version"] for answer in answers)
    assert versions == list(range(2, 42))
    last = max(answers, key=lambda answer: answer.json()["version"])
    assert last.json()["attributes"] == {f"n{number}": number for number in range(40)}
    assert positions(owner) == list(range(1, 42))


async def test_one_idempotency_key_takes_effect_once_through_any_process(
    two_writers: tuple[Process, Process], owner: psycopg.Connection[dict[str, Any]]
) -> None:
    answers = await race(
        two_writers, "POST", "/users", json={"email": "one@example.com"}, headers={"Idempotency-Key": "k1"}
    )
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {201, 409}
    assert all(
        answer.json()["errors"][0]["code"] == "idempotency_key_busy" for answer in answers if answer.status_code == 409
    )
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert positions(owner) == [1]


async def test_a_refused_command_never_fails_its_neighbours(
    two_writers: tuple[Process, Process], database_url: str, owner: psycopg.Connection[dict[str, Any]]
) -> None:
    async with httpx.AsyncClient(headers=authorized(), timeout=60, verify=PLAIN, trust_env=False) as client:
        with watching_positions(database_url):
            answers = await asyncio.gather(
                *(
                    client.post(
                        f"{two_writers[number % 2].url}/users", json={"email": f"user{number % 100}@example.com"}
                    )
                    for number in range(400)
                )
            )
    assert Counter(answer.status_code for answer in answers) == {201: 100, 409: 300}
    assert positions(owner) == list(range(1, 101))


async def create(writer: Process, email: str) -> httpx.Response:
    async with httpx.AsyncClient(headers=authorized(), timeout=60, verify=PLAIN, trust_env=False) as client:
        created = await client.post(f"{writer.url}/users", json={"email": email})
        assert created.status_code == 201
        return created
