"""`muster replay`: the log again, to a topic of its own; and a projection that is made of it."""

import json
import secrets
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from events.wire import user_to_wire
from runtime.settings import Settings
from tests.command_line import Operate, Told
from tests.databases import MakeSettings
from tests.histories import History
from tests.topics import TopicRecord, records_of

Owner = psycopg.Connection[dict[str, Any]]
Replayed = Callable[..., dict[str, Any]]


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings("muster_projector", broker=True)


@pytest.fixture
def topic() -> str:
    return f"replayed.{secrets.token_hex(4)}"


@pytest.fixture
def peopled(history: History) -> History:
    """Positions 1 to 40 are creations, 41 to 60 changes, 61 to 65 deletions."""
    history.create(range(40))
    history.change(range(20), display_name="Changed")
    history.delete(range(5))
    return history


def done(told: Told) -> dict[str, Any]:
    assert told.status == 0, told.stderr
    return told.result


def positions(records: list[TopicRecord]) -> list[int]:
    return sorted(record.position for record in records)


@pytest.mark.broker
def test_the_log_is_sent_in_order_with_its_ids_and_a_header(
    operate: Operate, settings: Settings, topic: str, peopled: History
) -> None:
    told = operate("replay", "--to-topic", topic, "--operator", "grace", "--json")
    result = done(told)
    assert (result["sent"], result["sent_before"], result["unreadable"], result["until"]) == (65, 0, 0, 65)
    records = records_of(settings, topic)
    assert positions(records) == list(range(1, 66))
    assert {record.headers["replay"] for record in records} == {result["replay"]}
    ids = peopled.owner.execute("SELECT position, event_id::text FROM log.events").fetchall()
    assert {record.position: record.headers["ce_id"] for record in records} == {
        row["position"]: row["event_id"] for row in ids
    }
    for partition in range(settings.topic_partitions):
        found = [record.position for record in records if record.partition == partition]
        assert found == sorted(found)
    operation = operate("operations", "--json").result["operations"][0]
    assert (operation["operator"], operation["operation"], operation["outcome"]) == ("grace", "replay", "done")
    assert (operation["parameters"]["topic"], operation["result"]["sent"]) == (topic, 65)


@pytest.mark.broker
def test_one_that_was_killed_is_gone_on_with(
    operate: Operate, settings: Settings, topic: str, history: History
) -> None:
    history.create(range(1200))
    killed = operate("replay", "--to-topic", topic, FAILPOINTS="replay.sent=kill@2")
    assert killed.status == -9
    before = len(records_of(settings, topic))
    assert before == 1000
    result = done(operate("replay", "--json", "--to-topic", topic))
    assert (result["sent"], result["sent_before"]) == (200, 1000)
    assert positions(records_of(settings, topic)) == list(range(1, 1201))
    again = done(operate("replay", "--json", "--to-topic", topic))
    assert (again["sent"], again["sent_before"]) == (0, 1200)
    history.create([2000])
    assert done(operate("replay", "--json", "--to-topic", topic))["sent"] == 1


def test_a_selection(operate: Operate, settings: Settings, topic: str, peopled: History) -> None:
    rows = peopled.owner.execute("SELECT recorded_at FROM log.events WHERE position IN (1, 40) ORDER BY position")
    first, last = [row["recorded_at"].isoformat() for row in rows.fetchall()]
    users = ",".join(str(peopled.users[number].id) for number in (3, 30))
    for number, (options, expected) in enumerate(
        (
            (["--from", "64"], [64, 65]),
            (["--until", "3"], [1, 2, 3]),
            (["--from", first, "--until", last], range(1, 41)),
            (["--types", "UserUpdated,UserDeleted", "--from", "60"], range(60, 66)),
            (["--users", users], [4, 31, 44, 64]),
            (["--users", users, "--types", "UserDeleted"], [64]),
        )
    ):
        into = f"{topic}.{number}"
        counted = done(operate("replay", "--json", "--to-topic", into, "--dry-run", *options))
        assert counted["events"] == len(expected)
        assert done(operate("replay", "--json", "--to-topic", into, *options))["sent"] == len(expected)
        assert positions(records_of(settings, into)) == list(expected)


@pytest.mark.usefixtures("peopled")
def test_the_live_topic_is_refused(operate: Operate, settings: Settings) -> None:
    for topic, word in ((settings.events_topic, "--force-live"), (settings.snapshot_topic, "current records")):
        refused = operate("replay", "--to-topic", topic)
        assert (refused.status, refused.stdout) == (1, "")
        assert word in refused.stderr
    forced = operate("replay", "--json", "--to-topic", settings.events_topic, "--force-live", "--until", "2")
    assert done(forced)["sent"] == 2


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--from", "yesterday"], "--from takes a position, or a moment"),
        (["--until", "2026-03-01T00:00:00"], "offset"),
        (["--types", "UserPromoted"], "UserPromoted"),
        (["--users", "ada"], "--users takes ids"),
        (["--users", "@/nowhere/at-all"], "No such file"),
    ],
)
def test_what_cannot_be_meant_is_told(operate: Operate, topic: str, options: list[str], word: str) -> None:
    told = operate("replay", "--to-topic", topic, *options)
    assert (told.status, told.stdout) == (2, "")
    assert word in told.stderr


def test_what_cannot_be_read_is_passed_over_and_told(
    operate: Operate, settings: Settings, topic: str, peopled: History
) -> None:
    peopled.damage(30, 1)
    told = operate("replay", "--to-topic", topic)
    assert told.status == 1
    assert "1 events cannot be read" in told.stderr
    assert positions(records_of(settings, topic)) == [position for position in range(1, 66) if position != 31]


def test_a_projection_in_another_schema_is_made_of_it(
    operate: Operate, settings: Settings, topic: str, owner: Owner, peopled: History
) -> None:
    """As a subscriber makes its own: the newest version of each user wins, whatever comes twice."""
    done(operate("replay", "--json", "--to-topic", topic))
    owner.execute("CREATE SCHEMA fresh")
    owner.execute("CREATE TABLE fresh.users (id uuid PRIMARY KEY, version integer NOT NULL, record jsonb NOT NULL)")
    records = records_of(settings, topic)
    for record in [*records, *records]:
        assert record.value is not None
        user = record.value["user"]
        owner.execute(
            "INSERT INTO fresh.users AS u VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE"
            " SET version = excluded.version, record = excluded.record WHERE u.version < excluded.version",
            (user["id"], user["version"], json.dumps(user)),
        )
    found = {row["id"]: row["record"] for row in owner.execute("SELECT id, record FROM fresh.users").fetchall()}
    assert found == {user.id: user_to_wire(user) for user in peopled.users.values()}
