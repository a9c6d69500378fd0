"""The topics beside the log, as a real relay has filled them; what is wrong is planted when it has stopped."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

import psycopg
import pytest
from confluent_kafka import Producer

from events.envelope import Envelope, Origin, history_envelope, snapshot_envelope
from events.histories import entries_at
from events.keyring import open_keyring
from events.partitioning import partition_of
from events.recording import Position, RecordedEvent
from muster.seeding import seed_log
from projector.findings import Finding
from projector.standing import CannotVerify, standing
from projector.topics_check import topics_check
from projector.verifying import one_moment
from runtime.ids import new_id
from runtime.settings import Settings
from tests.databases import PARTITIONS, MakeSettings
from tests.integration.muster.conftest import MUSTER
from tests.processes import Stack, StartProcess, environment_of
from tests.waiting import eventually

Owner = psycopg.Connection[dict[str, Any]]
HEAD = 7


class Topics:
    """Both topics with the seven events of three users, of whom the last is deleted. Nobody writes to them any more."""

    def __init__(self, owner: Owner, settings: Settings, writer: Settings) -> None:
        self.owner = owner
        self.settings = settings
        self._writer = writer

    async def findings(self, *, tail: int = 1000) -> list[Finding]:
        found: list[Finding] = []
        async with topics_check(self.settings) as check, one_moment(self.settings) as connection:
            stands = await standing(connection, self.settings)
            keyring = open_keyring(self.settings)
            await check.run(connection, keyring, stands, found.append, tail=tail, advanced=lambda _: None)
        return found

    async def history(self, position: int) -> Envelope:
        return history_envelope(await self.recorded(position), Origin.of(self.settings))

    async def snapshot(self, position: int) -> Envelope:
        return snapshot_envelope(await self.recorded(position), Origin.of(self.settings))

    async def recorded(self, position: int) -> RecordedEvent:
        async with one_moment(self.settings) as connection:
            entries = await entries_at(connection, open_keyring(self.settings), [Position(position)])
        found = entries[Position(position)].recorded
        assert found is not None
        return found

    async def user_of(self, position: int) -> UUID:
        return (await self.recorded(position)).event.user.id

    def seed(self, users: int) -> int:
        """Further events that are in no topic; gives the last one's position."""
        return seed_log(self._writer, users, seed=1, workers=1).last

    def plant(self, topic: str, envelope: Envelope, *, partition: int | None = None) -> None:
        if partition is None:
            partition = partition_of(UUID((envelope.key).decode()), PARTITIONS)
        producer = Producer({"bootstrap.servers": self.settings.kafka_bootstrap_servers, "log_level": 0})
        producer.produce(topic, envelope.value, envelope.key, partition, headers=list(envelope.headers))
        assert producer.flush(30) == 0

    def give_up(self, positions: Sequence[int]) -> None:
        self.owner.execute(
            "INSERT INTO log.discarded (position, user_id, version, operator, reason)"
            " SELECT position, user_id, version, 'a test', 'a test' FROM log.events WHERE position = ANY(%s)",
            (list(positions),),
        )

    def in_partition_of(self, position: int) -> list[int]:
        """The positions after the first seven that belong where this one does."""
        rows = self.owner.execute(
            "SELECT position, user_id FROM log.events WHERE position > %s ORDER BY position", (HEAD,)
        ).fetchall()
        partitions = {row["position"]: partition_of(row["user_id"], PARTITIONS) for row in rows}
        return [found for found, partition in partitions.items() if partition == partitions[position]]


@pytest.fixture
def topics(start_process: StartProcess, make_settings: MakeSettings, owner: Owner) -> Topics:
    command = start_process("command_api").wait_until_ready()
    with command.client() as client:
        users = [client.post("/users", json={"email": f"user{number}@example.com"}).json() for number in range(3)]
        for user in users:
            assert client.patch(f"/users/{user['id']}", json={"display_name": "Somebody"}).status_code == 200
        assert client.delete(f"/users/{users[-1]['id']}").status_code == 200
    settings = make_settings("muster_projector", broker=True)
    eventually(lambda: all_published(owner, settings), what="all is published")
    command.stop()
    # what the model holds is not compared here
    owner.execute(
        "INSERT INTO read_model.progress (partition, next_offset, position)"
        " SELECT partition, 0, %s FROM generate_series(0, %s) AS partition",
        (HEAD, PARTITIONS - 1),
    )
    return Topics(owner, settings, make_settings("muster_command"))


def all_published(owner: Owner, settings: Settings) -> bool:
    row = owner.execute(
        "SELECT count(*) AS done FROM log.head h JOIN log.publication p ON p.position >= h.position"
        " WHERE p.topic IN (%s, %s)",
        (settings.events_topic, settings.snapshot_topic),
    ).fetchone()
    return row is not None and row["done"] == 2 * PARTITIONS


def problems(findings: Sequence[Finding]) -> list[str]:
    return [finding.problem for finding in findings]


@pytest.mark.broker
async def test_topics_as_the_relay_left_them_have_no_difference(topics: Topics) -> None:
    assert await topics.findings() == []
    assert await topics.findings(tail=1) == []


async def test_a_record_that_is_none_of_ours_is_found_in_either_topic(topics: Topics) -> None:
    foreign = Envelope(key=b"key", value=b"value", headers=[])
    topics.plant(topics.settings.events_topic, foreign, partition=0)
    topics.plant(topics.settings.snapshot_topic, foreign, partition=0)
    tail, snapshot = await topics.findings()
    assert tail.problem == "it is no event of ours"
    assert snapshot.problem.endswith("is none of ours")


def with_another_body(envelope: Envelope) -> Envelope:
    return Envelope(key=envelope.key, value=b'{"user":{}}', headers=envelope.headers)


def with_another_header(envelope: Envelope) -> Envelope:
    headers = [(name, b"/forged" if name == "ce_source" else value) for name, value in envelope.headers]
    return Envelope(key=envelope.key, value=envelope.value, headers=headers)


def with_another_event_id(envelope: Envelope) -> Envelope:
    headers = [(name, str(new_id()).encode() if name == "ce_id" else value) for name, value in envelope.headers]
    return Envelope(key=envelope.key, value=envelope.value, headers=headers)


@pytest.mark.parametrize(
    ("alter", "problem"),
    [
        (with_another_body, "its body is not that of the event"),
        (with_another_header, "its headers are not those of the event"),
        (with_another_event_id, "the log has no event"),
    ],
)
async def test_a_record_that_is_not_its_event_is_found(
    topics: Topics, alter: Callable[[Envelope], Envelope], problem: str
) -> None:
    position = topics.seed(1)
    topics.plant(topics.settings.events_topic, alter(await topics.history(position)))
    (finding,) = await topics.findings()
    assert finding.problem.startswith(problem)
    assert finding.entry is not None
    assert finding.entry.position == position


async def test_a_record_in_another_partition_is_found(topics: Topics) -> None:
    envelope = await topics.history(topics.seed(1))
    partition = (partition_of(UUID(envelope.key.decode()), PARTITIONS) + 1) % PARTITIONS
    topics.plant(topics.settings.events_topic, envelope, partition=partition)
    assert problems(await topics.findings()) == ["the user belongs to another partition"]


@pytest.mark.broker
async def test_a_record_that_is_there_twice_is_found(topics: Topics) -> None:
    topics.plant(topics.settings.events_topic, await topics.history(HEAD))
    assert problems(await topics.findings()) == [f"position {HEAD} is in it twice"]


async def test_a_record_of_an_event_that_the_log_has_lost_is_found(topics: Topics) -> None:
    position = topics.seed(1)
    history, snapshot = await topics.history(position), await topics.snapshot(position)
    topics.owner.execute("DELETE FROM log.events WHERE position > %s", (HEAD,))
    topics.owner.execute("UPDATE log.head SET position = %s", (HEAD,))
    topics.plant(topics.settings.events_topic, history)
    topics.plant(topics.settings.snapshot_topic, snapshot)
    tail, last = problems(await topics.findings())
    assert tail.endswith(f"at position {position}")
    assert last == f"the log has no position {position}"


async def test_events_that_are_left_out_are_found_unless_they_were_given_up_or_held_back(topics: Topics) -> None:
    last = topics.seed(20)
    topics.plant(topics.settings.events_topic, await topics.history(last))
    *left_out, _ = topics.in_partition_of(last)
    found = await topics.findings()
    assert [finding.entry.position for finding in found if finding.entry is not None] == left_out
    assert all("is left out between" in finding.problem for finding in found)
    topics.give_up(left_out[1:])
    topics.owner.execute(
        "INSERT INTO log.parked (user_id, version, position, event_id, reason)"
        " SELECT user_id, version, position, event_id, 'a test' FROM log.events WHERE position = %s",
        (left_out[0],),
    )
    assert await topics.findings() == []


async def test_what_an_operator_had_published_late_may_be_out_of_order(topics: Topics) -> None:
    later = topics.seed(20)
    users = {position: await topics.user_of(position) for position in topics.in_partition_of(later)}
    earlier = next(position for position, user_id in users.items() if user_id != users[later])
    topics.give_up([position for position in range(HEAD + 1, later) if position != earlier])
    for position in (later, earlier):
        topics.plant(topics.settings.events_topic, await topics.history(position))
    assert problems(await topics.findings()) == [f"position {earlier} comes after {later}"]
    topics.owner.execute(
        "INSERT INTO log.operations (operator, operation, parameters, outcome)"
        " SELECT 'a test', 'parked.retry', jsonb_build_object('user_id', user_id, 'held_back_from', 'topics'), 'began'"
        " FROM log.events WHERE position = %s",
        (earlier,),
    )
    assert await topics.findings() == []


async def test_a_user_without_a_snapshot_is_found(topics: Topics) -> None:
    position = topics.seed(1)
    assert await topics.findings() == []
    topics.owner.execute(
        "UPDATE log.publication SET position = %s WHERE topic = %s", (position, topics.settings.snapshot_topic)
    )
    (finding,) = await topics.findings()
    assert finding.problem == "there is no record of the user"
    assert finding.entry is not None
    assert finding.entry.position == position


async def test_a_stale_snapshot_is_found(topics: Topics) -> None:
    topics.plant(topics.settings.snapshot_topic, await topics.snapshot(1))
    assert problems(await topics.findings()) == ["the last record is of position 1"]


async def test_a_tombstone_of_somebody_who_lives_is_found(topics: Topics) -> None:
    newest = await topics.snapshot(4)
    tombstone = Envelope(key=newest.key, value=None, headers=newest.headers)
    topics.plant(topics.settings.snapshot_topic, tombstone)
    (problem,) = problems(await topics.findings())
    assert problem.endswith("is not what the event says")


async def test_a_snapshot_of_nobody_is_found(topics: Topics) -> None:
    somebody = await topics.snapshot(1)
    nobody = Envelope(key=str(new_id()).encode(), value=somebody.value, headers=somebody.headers)
    topics.plant(topics.settings.snapshot_topic, nobody)
    assert problems(await topics.findings()) == ["the log has no such user"]


@pytest.mark.broker
async def test_a_topic_that_was_cut_short_is_found(topics: Topics) -> None:
    topics.owner.execute(
        "UPDATE log.publication SET next_offset = next_offset + 5 WHERE topic = %s AND partition = 1",
        (topics.settings.events_topic,),
    )
    (problem,) = problems(await topics.findings())
    assert problem.startswith("it ends at offset")


@pytest.mark.broker
async def test_topics_that_are_not_there_cannot_be_compared(make_settings: MakeSettings) -> None:
    with pytest.raises(CannotVerify, match="there is no topic"):
        async with topics_check(make_settings("muster_projector", broker=True)):
            pass


@pytest.fixture
def writing(stack: Stack) -> Iterator[Callable[[], int]]:
    """Users are created, changed and deleted without a pause; gives how many requests were answered so far."""
    stopping = threading.Event()
    answered: list[int] = []

    def write() -> None:
        with stack.command.client() as client:
            number = 0
            while not stopping.is_set():
                number += 1
                user = client.post("/users", json={"email": f"user{number}@example.com"}).json()
                answered.append(client.patch(f"/users/{user['id']}", json={"status": "disabled"}).status_code)
                if number % 3 == 0:
                    answered.append(client.delete(f"/users/{user['id']}").status_code)

    thread = threading.Thread(target=write)
    thread.start()
    yield lambda: len(answered)
    stopping.set()
    thread.join()
    assert set(answered) == {200}


@pytest.mark.broker
def test_while_writes_go_on_there_is_no_difference(writing: Callable[[], int], make_settings: MakeSettings) -> None:
    settings = make_settings("muster_projector", broker=True)
    compared: list[int] = []
    for _ in range(4):
        before = writing()
        eventually(lambda seen=before: writing() > seen + 20, what="more was written")
        done = subprocess.run(
            [str(MUSTER), "verify", "model", "--tail", "50", "--json"],
            env=environment_of(settings) | {"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        summary = json.loads(done.stdout)["result"]
        assert summary["differences"] == 0
        assert summary["topics"]["snapshot"] > 0
        compared.append(summary["events"])
    assert compared == sorted(set(compared))
