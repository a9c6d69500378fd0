"""Who sends a write's position reads that write from any replica, by id and in lists, however the partitions lie."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from events.partitioning import partition_of
from tests.calls import codes
from tests.processes import Process, StartProcess
from tests.waiting import eventually

pytestmark = pytest.mark.broker

Owner = psycopg.Connection[dict[str, Any]]

PARTITIONS = 6


def create(client: httpx.Client, number: int) -> str:
    answer = client.post("/users", json={"email": f"user{number}@example.com"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def create_in_every_partition(client: httpx.Client) -> list[str]:
    """One user of each partition."""
    users: dict[int, str] = {}
    for number in count(1):
        user = create(client, number)
        users.setdefault(partition_of(UUID(user), PARTITIONS), user)
        if len(users) == PARTITIONS:
            break
    return list(users.values())


def rename(client: httpx.Client, user: str, name: str) -> str:
    """The position of the change."""
    answer = client.patch(f"/users/{user}", json={"display_name": name})
    assert answer.status_code == 200, answer.text
    return answer.headers["event-position"]


def read(process: Process, path: str, position: str, *, wait: int = 30) -> httpx.Response:
    with process.client() as client:
        return client.get(path, headers={"Min-Position": position, "Prefer": f"wait={wait}"}, timeout=60)


def assert_readable(replicas: list[Process], user: str, name: str, position: str) -> None:
    for replica in replicas:
        page = read(replica, "/users?limit=200", position)
        assert page.status_code == 200, page.text
        assert name in [found["display_name"] for found in page.json()["users"] if found["id"] == user]
        assert read(replica, f"/users/{user}", position).json()["display_name"] == name


def projectors(start_process: StartProcess) -> list[Process]:
    """Two of one group, each of which has partitions."""
    both = [start_process("projector", topic_partitions=PARTITIONS) for _ in range(2)]

    def placed() -> bool:
        return all("projector placed" in projector.log.read_text() for projector in both)

    eventually(placed, what="both have partitions", timeout=60)
    return both


@pytest.fixture
def command(start_process: StartProcess) -> Process:
    return start_process("command_api", topic_partitions=PARTITIONS).wait_until_ready()


@pytest.fixture
def replicas(start_process: StartProcess) -> list[Process]:
    started = [start_process("query_api", topic_partitions=PARTITIONS) for _ in range(2)]
    return [process.wait_until_ready() for process in started]


def test_with_several_projectors_and_partitions_without_traffic(
    command: Process, replicas: list[Process], start_process: StartProcess
) -> None:
    projectors(start_process)
    with command.client() as client:
        alone = create(client, 0)
        # one partition has everything, the others nothing
        for number in range(5):
            assert_readable(replicas, alone, f"Alone {number}", rename(client, alone, f"Alone {number}"))
        users = create_in_every_partition(client)
        # one that was idle gets its next event after many of the others
        for number, user in enumerate(users):
            rename(client, user, f"User {number}")
        assert_readable(replicas, alone, "Again", rename(client, alone, "Again"))


def test_a_partition_without_traffic_is_noted_as_having_what_was_published(
    command: Process, start_process: StartProcess, owner: Owner
) -> None:
    start_process("projector", topic_partitions=PARTITIONS)
    with command.client() as client:
        user = create(client, 0)
        last = int([rename(client, user, f"Name {number}") for number in range(5)][-1])

    def noted() -> bool:
        rows = owner.execute("SELECT position FROM read_model.progress ORDER BY partition").fetchall()
        return [row["position"] for row in rows] == [last] * PARTITIONS

    eventually(noted, what="every partition has the last position", timeout=60)


def test_while_many_write(command: Process, replicas: list[Process], start_process: StartProcess) -> None:
    projectors(start_process)
    with command.client() as client:
        users = [create(client, number) for number in range(6)]

    def write_and_read(user: str) -> None:
        with command.client() as client:
            for number in range(5):
                assert_readable(replicas, user, f"Name {number}", rename(client, user, f"Name {number}"))

    with ThreadPoolExecutor(len(users)) as threads:
        for done in [threads.submit(write_and_read, user) for user in users]:
            done.result()


def test_while_a_projector_leaves_and_another_comes(
    command: Process, replicas: list[Process], start_process: StartProcess
) -> None:
    leaving, _ = projectors(start_process)
    with command.client() as client:
        users = create_in_every_partition(client)
        assert leaving.stop() == 0
        for name, user in enumerate(users):
            assert_readable(replicas, user, f"Left {name}", rename(client, user, f"Left {name}"))
        start_process("projector", topic_partitions=PARTITIONS)
        for name, user in enumerate(users):
            assert_readable(replicas, user, f"Came {name}", rename(client, user, f"Came {name}"))


def test_without_any_projector_what_was_readable_stays_so_and_the_rest_is_refused(
    command: Process, replicas: list[Process], start_process: StartProcess
) -> None:
    both = projectors(start_process)
    with command.client() as client:
        users = create_in_every_partition(client)
        read_before = rename(client, users[0], "Before")
        assert_readable(replicas, users[0], "Before", read_before)
        for projector in both:
            assert projector.stop() == 0
        later = rename(client, users[1], "After")
        for replica in replicas:
            for path in ("/users", f"/users/{users[1]}"):
                assert codes(read(replica, path, later, wait=0), 503) == ["projector_stopped"]
        assert_readable(replicas, users[0], "Before", read_before)
