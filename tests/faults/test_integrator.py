"""kill -9 and a broker that is away: no checkpoint contradicts another, and all that was acknowledged gets one."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from events.proofs.log_check import Checked, check_log
from runtime.database import Connection
from tests.databases import MakeSettings
from tests.processes import Process, StartProcess, environment_of
from tests.waiting import eventually

pytestmark = pytest.mark.broker

Owner = psycopg.Connection[dict[str, Any]]


def create(process: Process, number: int) -> None:
    with process.client() as client:
        assert client.post("/users", json={"email": f"user{number}@example.com"}).status_code == 201


def wait_until_signed(owner: Owner, size: int) -> None:
    newest = "SELECT max(size) AS size FROM log.checkpoints"
    eventually(
        lambda: owner.execute(newest).fetchall()[0]["size"] == size, what=f"a checkpoint of {size} events is signed"
    )


def checked(database_url: str) -> Checked:
    async def check() -> Checked:
        async with await Connection.connect(database_url, row_factory=dict_row) as connection:
            return await check_log(connection)

    return asyncio.run(check())


@pytest.mark.parametrize("point", ["integrator.before_save", "integrator.remembered"])
def test_an_integrator_that_is_killed_is_gone_on_from(
    start_process: StartProcess, owner: Owner, database_url: str, point: str
) -> None:
    """before_save: the tree has grown in memory alone. remembered: only the topic has the checkpoint."""
    first = start_process("command_api").wait_until_ready()
    for number in range(3):
        create(first, number)
    wait_until_signed(owner, 3)
    first.kill()
    doomed = start_process("command_api", failpoints=f"{point}=kill").wait_until_ready()
    # it may die before it answers: the event is committed all the same
    with contextlib.suppress(httpx.TransportError):
        create(doomed, 3)
    assert doomed.wait_until_dead() == -signal.SIGKILL
    last = start_process("command_api").wait_until_ready()
    create(last, 4)
    wait_until_signed(owner, 5)
    found = checked(database_url)
    assert (found.wrong, found.events, found.proved) == (None, 5, 5)


def test_of_two_command_apis_one_signs_and_the_other_goes_on_when_it_dies(
    start_process: StartProcess, owner: Owner, database_url: str
) -> None:
    both = [start_process("command_api").wait_until_ready() for _ in range(2)]

    def states() -> list[str]:
        return sorted(one.part("integrator") for one in both)

    eventually(lambda: states() == ["leading", "standby"], what="one of them leads")
    for number in range(10):
        create(both[number % 2], number)
    wait_until_signed(owner, 10)
    leader = next(one for one in both if one.part("integrator") == "leading")
    both.remove(leader)
    leader.kill()
    create(both[0], 10)
    wait_until_signed(owner, 11)
    found = checked(database_url)
    assert (found.wrong, found.proved) == (None, 11)


def test_without_a_broker_nothing_is_signed_and_with_it_all_is(
    start_process: StartProcess, owner: Owner, database_url: str
) -> None:
    away = start_process("command_api", kafka_bootstrap_servers="127.0.0.1:1").wait_until_ready()
    for number in range(3):
        create(away, number)
    eventually(
        lambda: away.part("integrator").startswith("retrying"),
        what="the integrator says that it cannot",
    )
    assert owner.execute("SELECT 1 FROM log.checkpoints").fetchall() == []
    assert away.stop() == 0
    start_process("command_api").wait_until_ready()
    wait_until_signed(owner, 3)
    assert checked(database_url).wrong is None


def test_a_relay_of_its_own_publishes_and_signs(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner, database_url: str
) -> None:
    quiet = start_process("command_api", relay=False).wait_until_ready()
    for number in range(3):
        create(quiet, number)
    environment = os.environ | environment_of(make_settings("muster_command", broker=True))
    relay = subprocess.Popen([sys.executable, "-m", "muster", "relay"], env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_until_signed(owner, 3)
        published = "SELECT min(position) AS position FROM log.publication"
        eventually(lambda: owner.execute(published).fetchall()[0]["position"] == 3, what="all is published")
    finally:
        relay.terminate()
    assert relay.wait(timeout=30) == 0
    assert checked(database_url).wrong is None
