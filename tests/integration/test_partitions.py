"""The number of partitions is fixed when a log is begun: another one is refused before it does anything."""

import os
import subprocess
import sys
from typing import Any

import httpx
import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from runtime.settings import Settings
from tests.databases import PARTITIONS, MakeSettings, as_role
from tests.plain_http import PLAIN
from tests.processes import ROLES, Process, StartProcess, environment_of
from tests.proxy import proxy_to
from tests.waiting import aeventually, eventually

Owner = psycopg.Connection[dict[str, Any]]

NAMES = {"command_api": "command-api", "query_api": "query-api", "projector": "projector"}
REFUSAL = f"TOPIC_PARTITIONS is {PARTITIONS}, and this log was begun with 12, which is fixed for ever: set it to 12"


def begin(owner: Owner, partitions: int) -> None:
    owner.execute("INSERT INTO log.partitioning (partitions) VALUES (%s)", (partitions,))


def fixed(owner: Owner) -> list[int]:
    return [row["partitions"] for row in owner.execute("SELECT partitions FROM log.partitioning").fetchall()]


def started(command: list[str], settings: Settings) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env=os.environ | environment_of(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


def topics(settings: Settings) -> set[str]:
    admin: Any = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    return set(admin.list_topics(timeout=30).topics) & {settings.events_topic, settings.snapshot_topic}


async def parts(process: Process) -> str:
    """What a process says of its parts; nothing while it does not answer."""
    async with httpx.AsyncClient(verify=PLAIN, trust_env=False) as client:
        try:
            return (await client.get(f"{process.url}/readyz")).text
        except httpx.TransportError:
            return ""


@pytest.mark.parametrize("process", sorted(NAMES))
def test_a_process_with_another_number_does_not_start(process: str, make_settings: MakeSettings, owner: Owner) -> None:
    begin(owner, 12)
    assert started([process], make_settings(ROLES[process])) == (2, f"{NAMES[process]}: {REFUSAL}\n")


def test_a_relay_of_its_own_with_another_number_does_not_start(make_settings: MakeSettings, owner: Owner) -> None:
    begin(owner, 12)
    assert started(["muster", "relay"], make_settings()) == (2, f"muster: {REFUSAL}\n")


@pytest.mark.broker
def test_the_first_relay_fixes_the_number(start_process: StartProcess, owner: Owner) -> None:
    start_process("command_api").wait_until_ready()
    eventually(lambda: fixed(owner) == [PARTITIONS], what="the number is fixed")


@pytest.mark.broker
async def test_topics_that_were_there_before_say_which_number_is_right(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner
) -> None:
    settings = make_settings(broker=True)
    admin: Any = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    for made in admin.create_topics([NewTopic(settings.events_topic, 4, 1)]).values():
        made.result(30)
    command = start_process("command_api")

    async def refused() -> bool:
        return "has 4 partitions" in await parts(command)

    await aeventually(refused, what="the relay refuses")
    assert fixed(owner) == []


@pytest.mark.broker
async def test_who_started_while_the_database_was_away_is_refused_before_it_does_anything(
    start_process: StartProcess, make_settings: MakeSettings, database_url: str, owner: Owner
) -> None:
    begin(owner, 12)
    async with proxy_to(database_url) as (proxy, url):
        await proxy.refuse()
        processes = [
            start_process(name, database_url=as_role(url, ROLES[name])) for name in ("command_api", "projector")
        ]

        async def told(word: str) -> bool:
            return all([word in await parts(process) for process in processes])

        await aeventually(lambda: told("retrying"), what="both have started")
        await proxy.start()
        await aeventually(lambda: told(REFUSAL), what="both refuse")
    assert topics(make_settings(broker=True)) == set()
