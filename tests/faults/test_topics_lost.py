"""The topic is transport and the log is history: what the topic lost comes back, what the log lost stops all."""

from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from confluent_kafka import Producer

from muster.embedded.broker import EmbeddedBroker
from runtime.ids import new_id
from runtime.settings import Settings
from tests.databases import MakeSettings
from tests.plain_http import PLAIN
from tests.processes import Process, StartProcess
from tests.topics import make_anew, records_of
from tests.waiting import eventually

Owner = psycopg.Connection[dict[str, Any]]


def create(process: Process, number: int) -> httpx.Response:
    with process.client() as client:
        created = client.post("/users", json={"email": f"user{number}@example.com"})
        assert created.status_code == 201, created.text
        return created


def positions_on(settings: Settings, topic: str) -> list[int]:
    return sorted(record.position for record in records_of(settings, topic))


def rows(owner: Owner) -> list[tuple[int, int]]:
    found = owner.execute("SELECT version, position FROM read_model.users ORDER BY position").fetchall()
    return [(row["version"], row["position"]) for row in found]


def epochs(owner: Owner) -> list[tuple[int, int]]:
    """Of each partition of the history: what the relay has said, and what the projector's offset belongs to."""
    found = owner.execute(
        "SELECT r.epoch AS published, p.epoch AS applied"
        " FROM log.publication r JOIN read_model.progress p USING (partition)"
        " WHERE r.topic LIKE 'users.events%' ORDER BY partition"
    ).fetchall()
    return [(row["published"], row["applied"]) for row in found]


@pytest.mark.broker
def test_topics_made_anew_are_filled_from_the_log(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner
) -> None:
    command, projector = start_process("command_api").wait_until_ready(), start_process("projector")
    projector.wait_until_ready()
    for number in range(6):
        create(command, number)
    eventually(lambda: len(rows(owner)) == 6, what="six rows")
    settings = make_settings(broker=True)
    make_anew(settings)
    eventually(
        lambda: positions_on(settings, settings.events_topic) == [1, 2, 3, 4, 5, 6],
        what="the history is published again",
    )
    assert "muster_relay_topic_lost_total" in httpx.get(f"{command.url}/metrics", verify=PLAIN, trust_env=False).text
    create(command, 6)
    eventually(lambda: rows(owner) == [(1, position) for position in range(1, 8)], what="the projector goes on")
    eventually(
        lambda: all(published == applied for published, applied in epochs(owner)),
        what="offsets of the old topic count no more",
    )
    assert max(epochs(owner)) > (0, 0)
    assert positions_on(settings, settings.events_topic) == [1, 2, 3, 4, 5, 6, 7]
    assert positions_on(settings, settings.snapshot_topic) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.broker
def test_a_topic_ahead_of_the_log_stops_relay_and_projector_until_an_operator_settles_it(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner
) -> None:
    command = start_process("command_api").wait_until_ready()
    create(command, 0)
    settings = make_settings(broker=True)
    eventually(lambda: positions_on(settings, settings.events_topic) == [1], what="the event is published")
    assert command.stop() == 0
    # as after a restore of an older backup: the topic has what the log has not
    stranger = records_of(settings, settings.events_topic)[0]
    headers = stranger.headers | {"ce_sequence": f"{99:019d}", "ce_id": str(new_id())}
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    producer.produce(
        settings.events_topic,
        key=stranger.key,
        value=b'{"user": {}, "changes": {}}',
        headers=[(name, value.encode()) for name, value in headers.items()],
        partition=stranger.partition,
    )
    assert producer.flush(30) == 0

    command = start_process("command_api").wait_until_ready()

    def relay() -> str:
        return str(httpx.get(f"{command.url}/readyz", verify=PLAIN, trust_env=False).json()["parts"]["relay"])

    eventually(lambda: relay().startswith("halted"), what="the relay halts")
    assert "position 99" in relay()
    assert "ends at position 1" in relay()
    create(command, 1)
    projector = start_process("projector")
    eventually(lambda: "halted" in readiness(projector), what="the projector halts")
    assert "position 99" in readiness(projector)
    assert positions_on(settings, settings.events_topic) == [1, 99]

    make_anew(settings)
    eventually(lambda: positions_on(settings, settings.events_topic) == [1, 2], what="the log is published anew")
    eventually(lambda: rows(owner) == [(1, 1), (1, 2)], what="the read model has both")


def readiness(process: Process) -> str:
    try:
        return httpx.get(f"{process.url}/readyz", verify=PLAIN, trust_env=False).text
    except httpx.TransportError:
        return ""


@pytest.mark.broker
def test_events_that_the_topic_lost_are_read_from_the_log(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner
) -> None:
    command = start_process("command_api").wait_until_ready()
    location = create(command, 0).headers["location"]
    projector = start_process("projector", projector_instance="one").wait_until_ready()
    eventually(lambda: rows(owner) == [(1, 1)], what="the first version is applied")
    assert projector.stop() == 0
    with command.client() as client:
        for name in ("Second", "Third"):
            assert client.patch(location, json={"display_name": name}).status_code == 200
    create(command, 1)
    settings = make_settings(broker=True)
    eventually(lambda: len(records_of(settings, settings.events_topic)) == 4, what="all is published")
    assert command.stop() == 0
    # the same topic without version 2, as a broker that lost a segment would have it
    kept = [record for record in records_of(settings, settings.events_topic) if record.position != 2]
    make_anew(settings)
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    for record in kept:
        assert record.value is not None
        producer.produce(
            settings.events_topic,
            key=record.key,
            value=httpx.Response(200, json=record.value).content,
            headers=[(name, value.encode()) for name, value in record.headers.items()],
            partition=record.partition,
        )
    assert producer.flush(30) == 0
    projector = start_process("projector", projector_instance="one").wait_until_ready()
    eventually(lambda: rows(owner) == [(3, 3), (1, 4)], what="the read model is whole")
    assert "reading the log" in projector.log.read_text()


def test_a_broker_that_is_away_delays_publication_and_forgets_nothing(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner, tmp_path: Path
) -> None:
    """The embedded broker saves about once a second: killed, it forgets its newest records."""
    with EmbeddedBroker(tmp_path / "broker") as broker:
        overrides: dict[str, Any] = {"kafka_bootstrap_servers": broker.bootstrap_servers}
        settings = make_settings(broker=True, **overrides)
        command = start_process("command_api", **overrides).wait_until_ready()
        start_process("projector", projector_instance="one", **overrides).wait_until_ready()
        broker.wait_until_saved([settings.events_topic, settings.snapshot_topic])
        for number in range(5):
            create(command, number)
        eventually(lambda: len(rows(owner)) == 5, what="five rows")
        assert broker.process is not None
        broker.process.kill()
        broker.process.wait()
        for number in range(5, 8):
            create(command, number)
        broker.start()
        create(command, 8)
        eventually(lambda: len(rows(owner)) == 9, what="all rows", timeout=60)
        eventually(
            lambda: positions_on(settings, settings.events_topic) == list(range(1, 10)),
            what="the topic is whole",
            timeout=60,
        )
