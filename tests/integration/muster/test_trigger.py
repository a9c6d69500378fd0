"""`muster trigger`: samples for a subscriber's developer, on a topic of their own."""

import json
import secrets
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer

from events.envelope import history_envelope, snapshot_envelope
from events.partitioning import partition_of
from muster.samples import TYPES
from runtime.broker_settings import BrokerSettings
from runtime.settings import Settings
from tests.command_line import MUSTER, Told
from tests.databases import MakeSettings
from tests.people import ADA_CREATED, ORIGIN, recorded
from tests.processes import inherited
from tests.topics import TopicRecord, records_of

USER = "0192d3c8-5b0e-7c31-9d5e-0a3f6f6f2b11"
LIVE = ("events_topic", "snapshot_topic", "checkpoints_topic")


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(broker=True)


@pytest.fixture
def topic() -> str:
    return f"tried.{secrets.token_hex(4)}"


class Triggered:
    """Run the command as a developer does who has a broker: no database, no key."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        told = {name.upper(): str(getattr(settings, name)) for name in ("kafka_bootstrap_servers", *LIVE)}
        partitions = {"TOPIC_PARTITIONS": str(settings.topic_partitions)}
        self.environment = {**inherited(), **told, **partitions, "MUSTER_HOME": str(folder / "nowhere")}

    def __call__(self, *arguments: str, **variables: str) -> Told:
        done = subprocess.run(
            [str(MUSTER), "trigger", *arguments],
            stdin=subprocess.DEVNULL,
            env={**self.environment, **variables},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Told(status=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def sent(self, *arguments: str) -> list[dict[str, Any]]:
        told = self(*arguments, "--json")
        assert told.status == 0, told.stderr
        return told.result["records"]


@pytest.fixture
def trigger(settings: Settings, tmp_path: Path) -> Triggered:
    return Triggered(settings, tmp_path)


def as_told(record: TopicRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("partition", "offset", "key", "headers", "value")}


@pytest.mark.broker
@pytest.mark.parametrize("kind", TYPES)
def test_a_sample_is_on_the_topic_as_the_relay_would_publish_it(
    trigger: Triggered, settings: Settings, topic: str, kind: str
) -> None:
    [told] = trigger.sent(kind, "--to-topic", topic)
    [record] = records_of(settings, topic)
    assert as_told(record) == told
    encode = snapshot_envelope if kind in {"user.snapshot", "user.tombstone"} else history_envelope
    real = encode(recorded(ADA_CREATED), ORIGIN)
    # what a request may bring along and a sample has not
    names = {name for name, _ in real.headers} - {"ce_traceparent"}
    assert record.headers.keys() == names | {"sample"}
    assert (record.headers["sample"], record.headers["ce_source"]) == ("true", "/muster/samples")
    assert record.key == record.headers["ce_subject"]
    assert record.partition == partition_of(UUID(record.key), settings.topic_partitions)
    if kind == "user.tombstone":
        assert record.value is None
    else:
        assert record.value is not None
        assert record.value["user"]["id"] == record.key
        assert ("changes" in record.value) == (kind != "user.snapshot")


def test_what_a_type_tells(trigger: Triggered, topic: str) -> None:
    made = {kind: trigger.sent(kind, "--to-topic", topic)[0] for kind in TYPES}
    types = {kind: record["headers"]["ce_type"].split(".")[1] for kind, record in made.items()}
    assert types == {
        "user.created": "UserCreated",
        "user.updated": "UserUpdated",
        "user.deleted": "UserDeleted",
        "user.erased": "UserDeleted",
        "user.snapshot": "UserCreated",
        "user.tombstone": "UserDeleted",
    }
    created, updated = (made[kind]["value"] for kind in ("user.created", "user.updated"))
    assert created["user"]["email"].endswith("@example.com")
    assert created["changes"]["email"] == {"old": None, "new": created["user"]["email"]}
    assert (created["user"]["version"], updated["user"]["version"]) == (1, 2)
    [(name, change)] = updated["changes"].items()
    assert change["new"] == updated["user"][name] != change["old"]
    deleted, erased = (made[kind]["value"] for kind in ("user.deleted", "user.erased"))
    assert deleted["changes"].keys() == erased["changes"].keys() == {"deleted_at"}
    assert erased["user"]["erased"] is True
    assert [erased["user"][name] for name in ("email", "display_name", "attributes")] == [None] * 3
    sequences = [record["headers"]["ce_sequence"] for record in made.values()]
    assert sequences == sorted(set(sequences))


def test_the_same_user_goes_on_from_what_the_topic_has(trigger: Triggered, settings: Settings, topic: str) -> None:
    to = ("--to-topic", topic, "--user", USER)
    trigger.sent("user.created", *to)
    trigger.sent("user.updated", *to, "--count", "3")
    trigger.sent("user.deleted", *to)
    records = records_of(settings, topic)
    assert [record.headers["ce_userversion"] for record in records] == ["1", "2", "3", "4", "5"]
    assert {record.key for record in records} == {USER}
    before: dict[str, Any] = {}
    for record in records:
        assert record.value is not None
        for name, change in record.value["changes"].items():
            assert change["old"] == before.get(name)
        before = record.value["user"]


def test_a_user_who_is_there_or_gone_is_not_made_again(trigger: Triggered, topic: str) -> None:
    to = ("--to-topic", topic, "--user", USER)
    trigger.sent("user.created", *to)
    told = trigger("user.created", *to)
    assert (told.status, told.stdout) == (1, "")
    assert told.stderr.strip() == f"muster: user {USER} is there already: say user.updated"
    trigger.sent("user.erased", *to)
    told = trigger("user.updated", *to)
    assert told.status == 1
    assert "take another id" in told.stderr


def test_count_is_of_as_many_users(trigger: Triggered, settings: Settings, topic: str) -> None:
    assert len(trigger.sent("user.created", "--to-topic", topic, "--count", "7")) == 7
    assert len({record.key for record in records_of(settings, topic)}) == 7
    lines = trigger("user.updated", "--to-topic", topic, "--count", "2").stdout.splitlines()
    assert len([json.loads(line) for line in lines]) == 2


@pytest.mark.parametrize("name", LIVE)
def test_a_live_topic_is_refused(trigger: Triggered, settings: Settings, name: str) -> None:
    for topic in (getattr(settings, name), BrokerSettings.model_fields[name].default):
        told = trigger("user.created", "--to-topic", topic, "--json")
        assert (told.status, json.loads(told.stdout)["errors"][0]["code"]) == (1, "live_topic")


async def test_so_is_one_that_a_relay_publishes_to_by_another_name(
    trigger: Triggered, settings: Settings, topic: str
) -> None:
    trigger.sent("user.created", "--to-topic", topic)
    envelope = history_envelope(recorded(ADA_CREATED), ORIGIN)
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers) as producer:
        await producer.send_and_wait(topic, envelope.value, envelope.key, partition=0, headers=list(envelope.headers))
    told = trigger("user.created", "--to-topic", topic)
    assert told.status == 1
    assert "as a relay publishes them" in told.stderr
    assert len(records_of(settings, topic)) == 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["user.promoted"], "user.promoted"),
        (["user.updated", "--user", "ada"], "--user takes a user's id"),
        (["user.created", "--user", USER, "--count", "2"], "no more than one user.created"),
        (["user.created", "--count", "0"], "count"),
    ],
)
def test_what_cannot_be_meant_is_told(trigger: Triggered, topic: str, arguments: list[str], word: str) -> None:
    told = trigger(*arguments, "--to-topic", topic)
    assert (told.status, told.stdout) == (2, "")
    assert word in told.stderr


def test_without_a_broker_it_says_so_in_one_line(trigger: Triggered, topic: str) -> None:
    told = trigger("user.created", "--to-topic", topic, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert told.status == 2
    [line] = told.stderr.splitlines()
    assert line.startswith("muster: the broker at 127.0.0.1:1: ")


def test_without_one_that_is_named_it_looks_for_the_development_stack(trigger: Triggered, topic: str) -> None:
    told = trigger("user.created", "--to-topic", topic, KAFKA_BOOTSTRAP_SERVERS="")
    assert told.status == 2
    assert "no stack runs" in told.stderr
