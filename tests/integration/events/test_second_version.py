"""Two versions of one event in one log and one topic: everywhere they are read as the newest, by whole processes."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg
import pytest

from events.contract import gate
from events.contract.schemas import published, schema_of
from runtime.settings import Settings
from tests.command_line import Operate
from tests.databases import MakeSettings
from tests.processes import ROOT, Process, StartProcess
from tests.second_version import NAME, Body
from tests.topics import records_of
from tests.waiting import eventually

Owner = psycopg.Connection[dict[str, Any]]

PACKAGE = Path(__file__).parents[2] / "second_version"
BOTH = {"PYTHONPATH": f"{PACKAGE}{os.pathsep}{ROOT}"}
TYPED, WRITTEN = "+49 30 123 456", "+4930123456"


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings("muster_projector", broker=True)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on whatever is started has the second version."""

    def upgrade() -> None:
        for name, value in BOTH.items():
            monkeypatch.setenv(name, value)

    return upgrade


def made(client: httpx.Client, email: str) -> str:
    return client.post("/users", json={"email": email}).raise_for_status().json()["id"]


def changed(client: httpx.Client, user_id: str, **fields: object) -> int:
    answer = client.patch(f"/users/{user_id}", json=fields).raise_for_status()
    return int(answer.headers["event-position"])


def wait_for_topic(owner: Owner, position: int) -> None:
    wait_for(owner, "SELECT min(position) >= %s AS come FROM log.publication", position)


def wait_for_model(owner: Owner, position: int) -> None:
    wait_for(owner, "SELECT max(position) >= %s AS come FROM read_model.progress", position)


def wait_for(owner: Owner, query: LiteralString, position: int) -> None:
    def come() -> bool:
        row = owner.execute(query, (position,)).fetchone()
        return row is not None and row["come"] is True

    eventually(come, what=f"{query} {position}")


def test_the_second_version_may_go_in() -> None:
    """It passes the gate that a developer's would have to pass."""
    body = schema_of(Body, NAME, 2)
    assert list(gate.judged(NAME, body, {**published()[NAME], 2: body}, version=2)) == []


@pytest.mark.broker
def test_two_versions_in_one_stream_are_read_as_the_newest(
    start_process: StartProcess, owner: Owner, settings: Settings, operate: Operate, later: Callable[[], None]
) -> None:
    first = start_process("command_api").wait_until_ready()
    with first.client() as client:
        ada, bert = made(client, "ada@example.com"), made(client, "bert@example.com")
        old = changed(client, ada, attributes={"phone": TYPED})
        changed(client, bert, attributes={"phone": TYPED, "floor": 3})
        head = changed(client, ada, display_name="Ada")
    wait_for_topic(owner, head)
    first.stop()

    later()
    command, query, projector = (start_process(name) for name in ("command_api", "query_api", "projector"))
    for process in (command, query, projector):
        process.wait_until_ready()
    with command.client() as client:
        # what is loaded to be changed is read as the newest, too: this writes what the upcaster made
        head = changed(client, ada, display_name="Ada Lovelace")
        head = int(client.delete(f"/users/{bert}").raise_for_status().headers["event-position"])
    wait_for_model(owner, head)

    rows = owner.execute("SELECT type, schema FROM log.events WHERE type = %s ORDER BY position", (NAME,)).fetchall()
    assert [row["schema"] for row in rows] == [1, 1, 1, 2]
    live = [record for record in records_of(settings, settings.events_topic) if record.headers["ce_type"] != ""]
    kinds = sorted(record.headers["ce_type"] for record in live)
    assert kinds.count("muster.UserUpdated.v1") == 3
    assert kinds.count("muster.UserUpdated.v2") == 1

    with query.client() as client:
        as_of_and_feed(client, ada, old, head)
    the_fold_and_all_copies_agree(operate)
    replayed(operate, settings)
    rebuilt(operate, owner)


def as_of_and_feed(client: httpx.Client, ada: str, old: int, head: int) -> None:
    for moment in ({"at_position": old}, {"version": 2}, {"at_position": head}):
        then = client.get(f"/users/{ada}", params=moment).raise_for_status().json()
        assert then["attributes"] == {"phone": WRITTEN}
    now = (
        client.get(f"/users/{ada}", headers={"Min-Position": str(head), "Prefer": "wait=10"}).raise_for_status().json()
    )
    assert (now["attributes"], now["display_name"]) == ({"phone": WRITTEN}, "Ada Lovelace")
    history = client.get(f"/users/{ada}/history").raise_for_status().json()
    assert TYPED not in str(history)
    feed = client.get("/events", params={"types": NAME}).raise_for_status().json()
    assert {event["type"] for event in feed} == {"muster.UserUpdated.v2"}
    assert [event["data"]["channel"] for event in feed] == ["unknown", "unknown", "unknown", "api"]
    assert feed[0]["data"]["changes"]["attributes"] == {"old": {}, "new": {"phone": WRITTEN}}


def the_fold_and_all_copies_agree(operate: Operate) -> None:
    """The changes fold to the records, and rows and topics, of either version, are what the log says."""
    told = operate("verify", "model", "--json", **BOTH)
    assert told.status == 0, told.stdout
    assert told.result["topics"] == {"events": 7, "snapshot": 7}


def replayed(operate: Operate, settings: Settings) -> None:
    topic = f"replayed.{secrets.token_hex(4)}"
    assert operate("replay", "--to-topic", topic, "--json", **BOTH).status == 0
    updates = [one for one in records_of(settings, topic) if one.headers["ce_type"].startswith("muster.UserUpdated")]
    assert {record.headers["ce_type"] for record in updates} == {"muster.UserUpdated.v2"}
    assert all(record.headers["ce_dataschema"].endswith("/UserUpdated.v2.json") for record in updates)
    assert TYPED not in str(updates)


def rebuilt(operate: Operate, owner: Owner) -> None:
    shown = "SELECT to_jsonb(u) - 'applied_at' AS row FROM read_model.users u ORDER BY id"
    before = owner.execute(shown).fetchall()
    told = operate("rebuild", "users", "--json", **BOTH)
    assert told.status == 0, told.stdout
    assert owner.execute(shown).fetchall() == before
    assert WRITTEN in str(before)


@pytest.mark.broker
def test_processes_that_are_not_upgraded_yet_read_the_later_version(
    start_process: StartProcess, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rolling upgrade, and the way back: what they do not know is passed over, and nothing is held back."""
    for name, value in BOTH.items():
        monkeypatch.setenv(name, value)
    upgraded = start_process("command_api").wait_until_ready()
    with upgraded.client() as client:
        ada = made(client, "ada@example.com")
        head = changed(client, ada, attributes={"phone": WRITTEN})
    wait_for_topic(owner, head)
    upgraded.stop()

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command, query, projector = (start_process(name) for name in ("command_api", "query_api", "projector"))
    for process in (command, query, projector):
        process.wait_until_ready()
    with command.client() as client:
        head = changed(client, ada, display_name="Ada")
    with query.client() as client:
        now = client.get(f"/users/{ada}", headers={"Min-Position": str(head), "Prefer": "wait=10"}).raise_for_status()
        assert (now.json()["attributes"], now.json()["display_name"]) == ({"phone": WRITTEN}, "Ada")
        feed = client.get("/events", params={"types": NAME}).raise_for_status().json()
        assert [event["type"] for event in feed] == ["muster.UserUpdated.v1"] * 2
        assert all("channel" not in event["data"] for event in feed)
    assert no_parked(projector)


def no_parked(projector: Process) -> bool:
    return "muster_projector_parked_total{" not in projector.get("/metrics").text
