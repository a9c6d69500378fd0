"""kill -9 at named places: nothing is lost, nothing happens twice, order is kept."""

import contextlib
import signal
from typing import Any

import httpx
import psycopg
import pytest

from tests.databases import MakeSettings
from tests.processes import Process, StartProcess
from tests.publication import published
from tests.topics import TopicRecord, records_of
from tests.waiting import eventually

pytestmark = pytest.mark.broker

Owner = psycopg.Connection[dict[str, Any]]


def create(process: Process, number: int, **headers: str) -> httpx.Response:
    with process.client() as client:
        return client.post("/users", json={"email": f"user{number}@example.com"}, headers=headers)


def rename(process: Process, location: str, name: str) -> httpx.Response:
    with process.client() as client:
        return client.patch(location, json={"display_name": name})


def log_positions(owner: Owner) -> list[int]:
    return [row["position"] for row in owner.execute("SELECT position FROM log.events ORDER BY position")]


def wait_until_published(owner: Owner, position: int) -> None:
    eventually(lambda: published(owner, position), what=f"position {position} is published")


def assert_published_once_in_order(records: list[TopicRecord], positions: list[int]) -> None:
    assert sorted(record.position for record in records) == positions
    by_partition: dict[int, list[int]] = {}
    for record in records:
        by_partition.setdefault(record.partition, []).append(record.position)
    assert all(found == sorted(found) for found in by_partition.values())


@pytest.mark.parametrize("point", ["relay.before_send", "relay.before_save"])
def test_the_command_api_dies_between_commit_and_publication(
    point: str, start_process: StartProcess, make_settings: MakeSettings, owner: Owner
) -> None:
    """before_send: committed, not in the topic. before_save: in the topic, not recorded as being there."""
    first = start_process("command_api").wait_until_ready()
    locations = [create(first, number).headers["location"] for number in range(5)]
    wait_until_published(owner, 5)
    assert first.stop() == 0

    doomed = start_process("command_api", failpoints=f"{point}=kill").wait_until_ready()
    # it may die before it answers: the event is committed all the same
    with contextlib.suppress(httpx.TransportError):
        create(doomed, 5)
    assert doomed.wait_until_dead() == -signal.SIGKILL
    assert log_positions(owner) == [1, 2, 3, 4, 5, 6]

    last = start_process("command_api").wait_until_ready()
    for location in locations:
        assert rename(last, location, "Survivor").status_code == 200
    wait_until_published(owner, 11)
    settings = make_settings(broker=True)
    for topic in (settings.events_topic, settings.snapshot_topic):
        assert_published_once_in_order(records_of(settings, topic), list(range(1, 12)))


def test_a_write_whose_answer_was_lost_is_safe_to_repeat(start_process: StartProcess, owner: Owner) -> None:
    doomed = start_process("command_api", failpoints="command.committed=kill").wait_until_ready()
    with pytest.raises(httpx.TransportError):
        create(doomed, 1, **{"Idempotency-Key": "k"})
    assert doomed.wait_until_dead() == -signal.SIGKILL
    again = create(start_process("command_api").wait_until_ready(), 1, **{"Idempotency-Key": "k"})
    assert again.status_code == 201
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["event-position"] == "1"
    assert log_positions(owner) == [1]


@pytest.mark.parametrize("point", ["projector.before_apply", "projector.applied"])
def test_the_projector_dies_around_its_commit(point: str, start_process: StartProcess, owner: Owner) -> None:
    """Rows and offsets commit together: before_apply has neither, applied has both and told nobody."""
    command = start_process("command_api").wait_until_ready()
    query = start_process("query_api").wait_until_ready()
    doomed = start_process("projector", projector_instance="one", failpoints=f"{point}=kill@2").wait_until_ready()
    locations: list[str] = []
    for number in range(200):
        if doomed.popen.poll() is not None:
            break
        locations.append(create(command, number).headers["location"])
    assert doomed.wait_until_dead() == -signal.SIGKILL
    last = [rename(command, location, "Survivor") for location in locations][-1]

    start_process("projector", projector_instance="one").wait_until_ready()
    with query.client() as client:
        fresh = {"Min-Position": last.headers["event-position"], "Prefer": "wait=30"}
        page = client.get("/users", params={"limit": 200}, headers=fresh)
    assert page.status_code == 200, page.text
    assert len(page.json()["users"]) == len(locations)
    rows = owner.execute("SELECT version, display_name, position FROM read_model.users ORDER BY position").fetchall()
    assert {(row["version"], row["display_name"]) for row in rows} == {(2, "Survivor")}
    count = len(locations)
    assert [row["position"] for row in rows] == list(range(count + 1, 2 * count + 1))


def test_the_other_process_takes_the_lead_when_the_relay_dies(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner
) -> None:
    leader = start_process("command_api").wait_until_ready()
    assert create(leader, 0).status_code == 201
    wait_until_published(owner, 1)
    standby = start_process("command_api").wait_until_ready()
    eventually(lambda: relay_state(standby) == "standby", what="the second relay stands by")
    leader.kill()
    assert create(standby, 1).status_code == 201
    wait_until_published(owner, 2)
    settings = make_settings(broker=True)
    assert_published_once_in_order(records_of(settings, settings.events_topic), [1, 2])


def test_a_stopping_relay_hands_over_at_once_and_answers_what_it_accepted(
    start_process: StartProcess, owner: Owner
) -> None:
    leader, standby = start_process("command_api").wait_until_ready(), start_process("command_api").wait_until_ready()
    eventually(lambda: {relay_state(leader), relay_state(standby)} == {"leading", "standby"}, what="one relay leads")
    if relay_state(standby) == "leading":
        leader, standby = standby, leader
    assert create(leader, 0).status_code == 201
    assert leader.stop() == 0
    assert create(standby, 1).status_code == 201
    wait_until_published(owner, 2)


def relay_state(process: Process) -> str:
    with process.client() as client:
        return str(client.get("/readyz").json()["parts"]["relay"])
