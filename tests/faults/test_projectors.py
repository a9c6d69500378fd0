"""Projectors come, go, die and get stuck under load: nothing is lost, nothing is applied twice, the lag recovers."""

import itertools
import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from tests.plain_http import PLAIN
from tests.processes import Process, StartProcess
from tests.publication import published
from tests.waiting import eventually

pytestmark = pytest.mark.broker

Owner = psycopg.Connection[dict[str, Any]]
PARTITIONS = 6


@contextmanager
def load(command: Process) -> Generator[list[int]]:
    """Create and rename users as fast as they are answered; gives the positions that were."""
    positions: list[int] = []
    ending = threading.Event()

    def write() -> None:
        with command.client() as client:
            for number in itertools.count():
                if ending.is_set():
                    return
                created = client.post("/users", json={"email": f"user{number}@example.com"})
                renamed = client.patch(created.headers["location"], json={"display_name": f"User {number}"})
                positions.extend(int(answer.headers["event-position"]) for answer in (created, renamed))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield positions
    finally:
        ending.set()
        writer.join(30)


def shares(owner: Owner) -> dict[str, int]:
    """How many partitions each living projector has."""
    found = owner.execute(
        "SELECT instance, cardinality(partitions) AS partitions FROM read_model.projectors"
        " WHERE seen_at > clock_timestamp() - interval '3 s'"
    ).fetchall()
    return {row["instance"]: row["partitions"] for row in found}


def behind(owner: Owner) -> list[dict[str, Any]]:
    """Users whose row is not their newest event's."""
    return owner.execute(
        "SELECT e.user_id FROM (SELECT user_id, max(version) AS version, max(position) AS position FROM log.events"
        " GROUP BY user_id) e LEFT JOIN read_model.users u ON u.id = e.user_id"
        " WHERE (u.version, u.position) IS DISTINCT FROM (e.version, e.position)"
    ).fetchall()


def wait_for_news(positions: list[int], owner: Owner) -> None:
    """Until something that is written from now on has been applied."""
    written = len(positions)
    eventually(lambda: len(positions) > written + 20, what="twenty more writes")
    newest = positions[-1]

    def applied() -> bool:
        row = owner.execute("SELECT max(position) AS position FROM read_model.users").fetchone()
        return row is not None and (row["position"] or 0) >= newest

    eventually(applied, what=f"position {newest} is applied", timeout=60)


def test_projectors_are_added_and_killed_under_load(start_process: StartProcess, owner: Owner) -> None:
    command = start_process("command_api", topic_partitions=PARTITIONS).wait_until_ready()
    query = start_process("query_api", topic_partitions=PARTITIONS).wait_until_ready()

    def projector(name: str) -> Process:
        return start_process("projector", topic_partitions=PARTITIONS, projector_instance=name)

    with load(command) as positions:
        projector("one")
        eventually(lambda: shares(owner) == {"one": 6}, what="one has all", timeout=60)
        wait_for_news(positions, owner)
        second = projector("two")
        eventually(lambda: shares(owner) == {"one": 3, "two": 3}, what="two share", timeout=60)
        wait_for_news(positions, owner)
        projector("three")
        eventually(lambda: shares(owner) == {"one": 2, "two": 2, "three": 2}, what="three share", timeout=60)
        wait_for_news(positions, owner)
        second.kill()
        # the embedded broker never puts out who was killed: there the new one takes the dead one's name
        added = "four" if "KAFKA_BOOTSTRAP_SERVERS" in os.environ else "two"
        projector(added)
        eventually(lambda: shares(owner) == {"one": 2, "three": 2, added: 2}, what="three share again", timeout=60)
        wait_for_news(positions, owner)
    with query.client() as client:
        fresh = {"Min-Position": str(positions[-1]), "Prefer": "wait=30"}
        assert client.get("/users", params={"limit": 1}, headers=fresh).status_code == 200
    assert behind(owner) == []
    assert sorted(positions) == list(range(1, len(positions) + 1))


def test_of_two_transactions_the_projector_dies_between(start_process: StartProcess, owner: Owner) -> None:
    """A large batch is applied in two, each of partitions of its own: the other's records come again."""
    command = start_process("command_api").wait_until_ready()

    def create(first: int, count: int) -> None:
        lines = "\n".join(f'{{"email": "user{number}@example.com"}}' for number in range(first, first + count))
        with command.client() as client:
            headers = {"Content-Type": "application/x-ndjson"}
            assert client.post("/users/import", content=lines, headers=headers).is_success

    def all_applied() -> bool:
        return behind(owner) == []

    projector = start_process("projector", projector_instance="one").wait_until_ready()
    create(0, 30)
    eventually(all_applied, what="all is applied")
    assert projector.stop() == 0
    create(30, 1500)
    eventually(lambda: published(owner, 1530), what="all is published")
    before = applied(owner)
    with owner.transaction():
        # whoever moves this partition waits
        owner.execute("SELECT FROM read_model.progress WHERE partition = 0 FOR UPDATE")
        doomed = start_process("projector", projector_instance="one", failpoints="projector.applied=kill")
        assert doomed.wait_until_dead() == -signal.SIGKILL
        after = applied(owner)
        assert after[0] == before[0]
        assert after != before
    start_process("projector", projector_instance="one").wait_until_ready()
    eventually(all_applied, what="all is applied")


def applied(owner: Owner) -> dict[int, int]:
    """The offset that each partition goes on at."""
    found = owner.execute("SELECT partition, next_offset FROM read_model.progress").fetchall()
    return {row["partition"]: row["next_offset"] for row in found}


def test_a_consumer_that_is_alive_and_does_not_move_is_made_anew(start_process: StartProcess, owner: Owner) -> None:
    command = start_process("command_api").wait_until_ready()
    projector = start_process("projector", stuck_after=1.0, failpoints="projector.poll=hang@5").wait_until_ready()
    with load(command) as positions:
        eventually(lambda: len(positions) > 10, what="some writes")
    eventually(lambda: behind(owner) == [], what="all is applied", timeout=60)
    metrics = httpx.get(f"{projector.url}/metrics", verify=PLAIN, trust_env=False).text
    assert "muster_projector_restarts_total 1.0" in metrics
