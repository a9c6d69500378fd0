"""Erasures through kill -9, a broker that is away, lost topics and rebuilds: the person ends erased everywhere."""

import contextlib
import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
import pytest

from runtime.fleeting import FORGOTTEN_WITHIN
from runtime.settings import Settings
from tests.command_line import Operate
from tests.databases import MakeSettings, as_role
from tests.dumps import Dumps
from tests.processes import ROLES, Process, Stack, StartProcess
from tests.publication import published
from tests.topics import TopicRecord, make_anew, records_of
from tests.waiting import eventually

pytestmark = pytest.mark.broker

Owner = psycopg.Connection[dict[str, Any]]

EMAIL, NAME = "zuleika@lovelace.example", "Zuleika"
POINTS = [
    "erasure.requested",
    "command.committed",
    "erasure.deleting",
    "erasure.deleted",
    "erasure.erased",
    "relay.burying",
    "relay.buried",
]


def create(process: Process, email: str = EMAIL) -> str:
    with process.client() as client:
        answer = client.post("/users", json={"email": email, "display_name": NAME})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]


def erase(process: Process, user_id: str) -> httpx.Response:
    with process.client() as client:
        return client.post(f"/users/{user_id}/erase")


def erasure(owner: Owner) -> dict[str, Any]:
    (row,) = owner.execute("SELECT * FROM log.erasures").fetchall() or [{"erased_at": None, "buried_at": None}]
    return row


def wait_until_buried(owner: Owner) -> None:
    eventually(lambda: erasure(owner)["buried_at"], what="the tombstone is confirmed")


def personal(records: list[TopicRecord]) -> list[TopicRecord]:
    found: list[TopicRecord] = []
    for record in records:
        text = orjson.dumps([record.value, record.headers])
        if EMAIL.encode() in text or NAME.encode() in text:
            found.append(record)
    return found


def last_of(settings: Settings, user_id: str) -> TopicRecord:
    return [record for record in records_of(settings, settings.snapshot_topic) if record.key == user_id][-1]


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_step_ends_erased(
    point: str, start_process: StartProcess, make_settings: MakeSettings, owner: Owner
) -> None:
    first = start_process("command_api").wait_until_ready()
    user_id = create(first)
    assert first.stop() == 0
    doomed = start_process("command_api", failpoints=f"{point}=kill").wait_until_ready()
    # it may die before it answers, or after
    with contextlib.suppress(httpx.TransportError):
        erase(doomed, user_id)
    assert doomed.wait_until_dead() == -signal.SIGKILL

    start_process("command_api").wait_until_ready()
    wait_until_buried(owner)
    events = owner.execute("SELECT type FROM log.events ORDER BY position").fetchall()
    assert [event["type"] for event in events] == ["UserCreated", "UserDeleted"]
    assert owner.execute("SELECT wrapped FROM log.user_keys").fetchall() == [{"wrapped": None}]
    assert last_of(make_settings(broker=True), user_id).value is None


def test_it_is_complete_once_no_process_can_remember(stack: Stack, operate: Operate, owner: Owner) -> None:
    user_id = create(stack.command)
    stays = create(stack.command, "grace@example.com")
    erase(stack.command, user_id)
    eventually(lambda: erasure(owner)["completed_at"], what="the erasure is complete")
    row = erasure(owner)
    assert (row["completed_at"] - row["erased_at"]).total_seconds() >= FORGOTTEN_WITHIN
    assert erase(stack.command, user_id).status_code == 200
    with stack.query.client() as client:
        receipt = client.get(f"/users/{user_id}/erasure").json()
        assert (receipt["state"], receipt["nothing_after"] is not None) == ("done", True)
        assert client.get(f"/users/{user_id}").status_code == 410
        fresh = {"Min-Position": "3", "Prefer": "wait=30"}
        assert client.get(f"/users/{stays}", headers=fresh).status_code == 200
        metrics = stack.command.get("/metrics").text
    assert "muster_erasures_total 1.0" in metrics
    eventually(lambda: "muster_erasures_open 0.0" in stack.command.get("/metrics").text)
    # the history topic has what was published before, the log has it no more: no difference
    told = operate("verify", "model", "--all")
    assert told.status == 0, told.stdout + told.stderr
    logs = "".join(process.log.read_text() for process in (stack.command, stack.query, stack.projector))
    assert EMAIL not in logs
    assert NAME not in logs


def test_what_the_broker_was_away_for_is_published_as_erased(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner
) -> None:
    alone = start_process("command_api", broker=False).wait_until_ready()
    user_id = create(alone)
    assert erase(alone, user_id).status_code == 202
    assert erasure(owner)["erased_at"] is not None
    assert alone.stop() == 0
    start_process("command_api").wait_until_ready()
    wait_until_buried(owner)
    settings = make_settings(broker=True)
    history = records_of(settings, settings.events_topic)
    assert [record.headers["ce_type"] for record in history] == ["muster.UserCreated.v1", "muster.UserDeleted.v1"]
    assert all(record.value is not None and record.value["user"]["erased"] for record in history)
    assert personal(history + records_of(settings, settings.snapshot_topic)) == []
    assert last_of(settings, user_id).value is None


def test_a_tombstone_that_was_never_sent_is_sent(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner
) -> None:
    """The user was deleted long ago, and the topic has lost what was said of that."""
    settings = make_settings(broker=True)
    command = start_process("command_api").wait_until_ready()
    user_id = create(command)
    with command.client() as client:
        assert client.delete(f"/users/{user_id}").status_code == 200
    create(command, "grace@example.com")
    eventually(lambda: published(owner, 3), what="all is published")
    before = len(records_of(settings, settings.snapshot_topic))
    erase(command, user_id)
    wait_until_buried(owner)
    records = records_of(settings, settings.snapshot_topic)
    assert len(records) == before + 1
    assert (last_of(settings, user_id).value, last_of(settings, user_id).position) == (None, 2)
    # the relay goes on from there, also another one
    create(command, "mary@example.com")
    eventually(lambda: published(owner, 4), what="the relay goes on")
    assert command.stop() == 0
    second = start_process("command_api").wait_until_ready()
    create(second, "emmy@example.com")
    eventually(lambda: published(owner, 5), what="the next relay goes on")
    positions = sorted(record.position for record in records_of(settings, settings.events_topic))
    assert positions == [1, 2, 3, 4, 5]


def test_topics_that_were_lost_come_back_without_the_person(
    start_process: StartProcess, make_settings: MakeSettings, operate: Operate, owner: Owner
) -> None:
    settings = make_settings(broker=True)
    command, projector = start_process("command_api").wait_until_ready(), start_process("projector")
    projector.wait_until_ready()
    user_id = create(command)
    create(command, "grace@example.com")
    eventually(lambda: published(owner, 2), what="all is published")
    assert len(personal(records_of(settings, settings.events_topic))) == 2
    erase(command, user_id)
    wait_until_buried(owner)
    make_anew(settings)

    def republished() -> bool:
        return len(records_of(settings, settings.events_topic)) == 3

    eventually(republished, what="the log is published anew")
    others = [record for record in records_of(settings, settings.events_topic) if record.key == user_id]
    assert personal(others) == []
    told = operate("replay", "--to-topic", f"{settings.events_topic}.again")
    assert told.status == 0, told.stderr
    again = records_of(settings, f"{settings.events_topic}.again")
    assert len(again) == 3
    assert personal([record for record in again if record.key == user_id]) == []


def test_a_user_whom_relay_and_projector_hold_back_is_erased(
    start_process: StartProcess, make_settings: MakeSettings, operate: Operate, owner: Owner
) -> None:
    """What could not be opened is nothing any more that has to be."""
    settings = make_settings(broker=True)
    command, projector = start_process("command_api").wait_until_ready(), start_process("projector")
    projector.wait_until_ready()
    user_id = create(command)
    eventually(lambda: published(owner, 1), what="the first event is published")
    assert command.stop() == 0
    quiet = start_process("command_api", broker=False).wait_until_ready()
    with quiet.client() as client:
        for name in ("Second", NAME):
            assert client.patch(f"/users/{user_id}", json={"display_name": name}).status_code == 200
    assert quiet.stop() == 0
    owner.execute("UPDATE log.events SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1) WHERE version = 2")
    command = start_process("command_api").wait_until_ready()
    eventually(lambda: owner.execute("SELECT 1 FROM log.parked").fetchall(), what="the relay holds the user back")
    assert erase(command, user_id).status_code == 202
    wait_until_buried(owner)
    assert owner.execute("SELECT 1 FROM log.parked").fetchall() == []
    history = [record.position for record in records_of(settings, settings.events_topic)]
    assert history == [1, 2, 3, 4]

    def projected() -> bool:
        return operate("lag").status == 0

    eventually(projected, what="the projector has it all", timeout=60)
    told = operate("verify", "model", "--all")
    assert told.status == 0, told.stdout + told.stderr


def test_a_rebuild_that_was_left_unfinished_keeps_nothing(stack: Stack, operate: Operate, owner: Owner) -> None:
    user_ids = [create(stack.command, f"{number}-{EMAIL}") for number in range(3)]
    eventually(lambda: published(owner, 3), what="all is published")
    for step, user_id in zip(("copied", "indexed", "compared"), user_ids, strict=True):
        told = operate("rebuild", "users", "--workers", "1", FAILPOINTS=f"rebuild.{step}=kill")
        assert told.status == -signal.SIGKILL
        held = owner.execute("SELECT email FROM read_model.users_next WHERE id = %s", (user_id,)).fetchall()
        assert EMAIL in held[0]["email"]
        erase(stack.command, user_id)
        for table in ("users", "users_next"):
            (row,) = owner.execute(f"SELECT * FROM read_model.{table} WHERE id = %s", (user_id,)).fetchall()
            assert (row["email"], row["display_name"], row["deleted_at"] is not None) == (None, None, True)
            names = owner.execute(f"SELECT name FROM read_model.{table}_names WHERE id = %s", (user_id,)).fetchall()
            # a build that was left before its indexes has no names yet
            assert [row["name"] for row in names] in ([None], [])
    told = operate("rebuild", "users", "--workers", "1")
    assert told.status == 0, told.stderr
    assert owner.execute("SELECT 1 FROM read_model.users WHERE email IS NOT NULL").fetchall() == []
    told = operate("verify", "model", "--all")
    assert told.status == 0, told.stdout + told.stderr


def test_a_rebuild_that_goes_on_meanwhile_is_whole(stack: Stack, operate: Operate, owner: Owner) -> None:
    user_ids = [create(stack.command, f"{number}-{EMAIL}") for number in range(40)]
    told: list[int] = []

    def rebuild() -> None:
        told.extend(operate("rebuild", "users", "--workers", "1").status for _ in range(2))

    rebuilding = threading.Thread(target=rebuild)
    rebuilding.start()
    while rebuilding.is_alive() and user_ids:
        assert erase(stack.command, user_ids.pop()).status_code == 202
    rebuilding.join()
    for user_id in user_ids:
        assert erase(stack.command, user_id).status_code == 202

    def erased() -> bool:
        return not owner.execute("SELECT 1 FROM read_model.users WHERE email IS NOT NULL").fetchall()

    eventually(erased, what="nobody is left in the read model")
    assert told == [0, 0]
    eventually(lambda: operate("lag").status == 0, what="the projector has it all", timeout=60)
    verified = operate("verify", "model", "--all")
    assert verified.status == 0, verified.stdout + verified.stderr


def test_after_a_restore_the_erased_stay_erased_and_all_goes_on(
    start_process: StartProcess, operate: Operate, owner: Owner, dumps: Dumps, tmp_path: Path
) -> None:
    """The runbook of docs/operate.md, with topics that are made anew."""
    command = start_process("command_api").wait_until_ready()
    user_id, stays = create(command), create(command, "grace@example.com")
    dump = dumps.dump("before")
    erase(command, user_id)
    eventually(lambda: erasure(owner)["completed_at"], what="the erasure is complete")
    as_command = {"DATABASE_URL": as_role(dumps.restored, "muster_command")}
    receipts = tmp_path / "receipts.ndjson"
    receipts.write_text(operate("erasures").stdout)
    assert command.stop() == 0

    with dumps.restore(dump) as restored:
        told = operate("erase", "--again", str(receipts), "--wait", "0", **as_command)
        assert told.status == 1, told.stderr
        elsewhere = {"events_topic": f"events.{tmp_path.name}", "snapshot_topic": f"snapshot.{tmp_path.name}"}
        processes = {
            name: start_process(name, database_url=as_role(dumps.restored, role), **elsewhere).wait_until_ready()
            for name, role in ROLES.items()
        }
        eventually(lambda: erasure(restored)["completed_at"], what="the erasure is complete again")
        told = operate("erase", "--again", str(receipts), "--wait", "0", "--json", **as_command)
        assert (told.status, told.result["already"]) == (0, 1)
        with processes["command_api"].client() as client:
            written = client.patch(f"/users/{stays}", json={"display_name": "Grace"})
        assert written.headers["event-position"] == "4"
        with processes["query_api"].client() as client:
            fresh = {"Min-Position": "4", "Prefer": "wait=30"}
            assert client.get(f"/users/{stays}", headers=fresh).json()["display_name"] == "Grace"
            assert client.get(f"/users/{user_id}").status_code == 410
            assert client.get(f"/users/{user_id}/erasure").json()["state"] == "done"
        variables = {name.upper(): value for name, value in elsewhere.items()}
        variables["DATABASE_URL"] = as_role(dumps.restored, "muster_projector")
        told = operate("verify", "model", "--all", **variables)
        assert told.status == 0, told.stdout + told.stderr

        # a checkpoint of the event that the dump lacks was signed: nothing contradicts it until an operator says so
        eventually(
            lambda: processes["command_api"].part("integrator").startswith("halted"), what="the integrator refuses"
        )
        told = operate("proofs", "begin-anew", "--reason", "a disk was lost", **as_command)
        assert told.status == 0, told.stderr
        signed = "SELECT 1 FROM log.checkpoints WHERE generation = 2 AND size = 4"
        eventually(lambda: restored.execute(signed).fetchall(), what="the log is signed to its end")
        told = operate("verify", "log", "--json", **variables)
        assert (told.status, told.result["proved"]) == (0, 4)
