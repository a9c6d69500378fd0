"""A rebuild while people read and write: nobody notices, and nothing is missing afterwards."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from tests.command_line import Operate
from tests.processes import Process, Stack
from tests.waiting import eventually

pytestmark = pytest.mark.broker

Owner = psycopg.Connection[dict[str, Any]]


@contextmanager
def going_on(process: Process, step: Callable[[httpx.Client], Iterator[int]]) -> Generator[Counter[int]]:
    """Do this again and again on a thread of its own; gives how often each status was answered."""
    statuses: Counter[int] = Counter()
    enough = threading.Event()

    def run() -> None:
        with process.client() as client:
            while not enough.is_set():
                statuses.update(step(client))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        eventually(lambda: statuses, what="it has begun")
        yield statuses
    finally:
        enough.set()
        thread.join()


def test_readers_and_writers_go_on_through_the_whole_rebuild(stack: Stack, operate: Operate, owner: Owner) -> None:
    with stack.command.client() as client:
        made = [client.post("/users", json={"email": f"user{number}@example.com"}) for number in range(60)]
    assert {answer.status_code for answer in made} == {201}
    locations = [answer.headers["location"] for answer in made]
    newest = made[-1].headers["event-position"]
    with stack.query.client() as client:
        fresh = client.get("/users", headers={"Min-Position": newest, "Prefer": "wait=30"})
    assert fresh.status_code == 200
    turns = itertools.count()
    names: dict[str, str] = {}

    def read(client: httpx.Client) -> Iterator[int]:
        yield client.get(locations[next(turns) % len(locations)]).status_code
        page = client.get("/users", params={"limit": 200})
        yield page.status_code
        assert len(page.json()["users"]) >= len(locations)

    def write(client: httpx.Client) -> Iterator[int]:
        nonlocal newest
        number = next(turns)
        location = locations[number % len(locations)]
        answer = client.patch(location, json={"display_name": f"Name {number}"})
        yield answer.status_code
        names[location] = f"Name {number}"
        answer = client.post("/users", json={"email": f"new{number}@example.com"})
        yield answer.status_code
        newest = answer.headers["event-position"]

    made_before = owner.execute("SELECT 'read_model.users'::regclass::oid AS oid").fetchall()
    with going_on(stack.query, read) as reads, going_on(stack.command, write) as writes:
        told = operate("rebuild", "users", "--workers", "1", "--json")
    assert told.status == 0, told.stderr
    summary = told.result
    assert (summary["swapped"], summary["differences"], summary["parked"]) == (True, 0, 0)
    assert owner.execute("SELECT 'read_model.users'::regclass::oid AS oid").fetchall() != made_before
    assert reads.keys() == {200}
    assert writes.keys() == {200, 201}

    with stack.query.client() as client:
        fresh = {"Min-Position": newest, "Prefer": "wait=30"}
        for location, name in names.items():
            answer = client.get(location, headers=fresh)
            assert (answer.status_code, answer.json()["display_name"]) == (200, name)
    again = operate("rebuild", "users", "--workers", "1", "--dry-run", "--json")
    summary = again.result
    assert (summary["differences"], summary["users"]) == (0, len(locations) + writes[201])
    assert stack.projector.ready()
