"""An event that cannot be applied is set aside with its user's later ones; everybody else's flow on."""

import signal
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from confluent_kafka import Producer

from events.partitioning import partition_of
from runtime.ids import new_id
from runtime.settings import Settings
from tests.command_line import Operate
from tests.databases import PARTITIONS, MakeSettings
from tests.plain_http import PLAIN
from tests.processes import Process, StartProcess
from tests.rotations import NEW, NEW_KEK, OLD, keks
from tests.tokens import KEK
from tests.topics import records_of
from tests.waiting import eventually

Owner = psycopg.Connection[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    id: str
    place: str


def create(process: Process, name: str) -> Person:
    with process.client() as client:
        answer = client.post("/users", json={"email": f"{name}@example.com", "display_name": name})
        assert answer.status_code == 201, answer.text
        return Person(id=answer.json()["id"], place=answer.headers["location"])


def rename(process: Process, person: Person, name: str) -> int:
    with process.client() as client:
        answer = client.patch(person.place, json={"display_name": name})
        assert answer.status_code == 200, answer.text
        return int(answer.headers["event-position"])


def row_of(owner: Owner, person: Person) -> tuple[int, str | None] | None:
    row = owner.execute("SELECT version, display_name FROM read_model.users WHERE id = %s", (person.id,)).fetchone()
    return None if row is None else (row["version"], row["display_name"])


def wait_for(owner: Owner, person: Person, version: int, name: str) -> None:
    eventually(lambda: row_of(owner, person) == (version, name), what=f"version {version}, {name}, is readable")


def parked(owner: Owner) -> list[dict[str, Any]]:
    return owner.execute(
        "SELECT user_id::text, version, position, source, reason, tries FROM read_model.parked ORDER BY id"
    ).fetchall()


def parked_by_relay(owner: Owner) -> list[dict[str, Any]]:
    return owner.execute("SELECT user_id::text, version, position, reason FROM log.parked ORDER BY position").fetchall()


def published(settings: Settings) -> list[int]:
    return [record.position for record in records_of(settings, settings.events_topic)]


def plant(settings: Settings, key: str, partition: int, value: bytes, **headers: str) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    producer.produce(
        settings.events_topic,
        key=key,
        value=value,
        headers=[(name, text.encode()) for name, text in headers.items()],
        partition=partition,
    )
    assert producer.flush(30) == 0


def alter(owner: Owner, position: int) -> bytes:
    """Break the seal of an event; gives what restores it."""
    row = owner.execute("SELECT sealed FROM log.events WHERE position = %s", (position,)).fetchone()
    assert row is not None
    restore(owner, position, row["sealed"][:-1] + bytes([row["sealed"][-1] ^ 1]))
    return row["sealed"]


def restore(owner: Owner, position: int, sealed: bytes) -> None:
    owner.execute("UPDATE log.events SET sealed = %s WHERE position = %s", (sealed, position))


def append_unpublished(start_process: StartProcess, person: Person, name: str) -> int:
    """A change that is in the log and not in the topics."""
    silent = start_process("command_api", relay=False).wait_until_ready()
    position = rename(silent, person, name)
    assert silent.stop() == 0
    return position


def damage_in_topic(owner: Owner, settings: Settings, person: Person, position: int) -> None:
    """Put a record that cannot be read where that event should be in the topic."""
    row = owner.execute("SELECT event_id FROM log.events WHERE position = %s", (position,)).fetchone()
    assert row is not None
    headers = {"ce_sequence": f"{position:019d}", "ce_id": str(row["event_id"]), "ce_type": "muster.UserUpdated.v1"}
    plant(settings, person.id, partition_of(UUID(person.id), PARTITIONS), b'{"user": {', **headers)


@pytest.mark.broker
def test_a_damaged_record_of_the_topic_holds_back_its_user_alone_and_a_retry_reads_the_log(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner, operate: Operate
) -> None:
    start_process("projector")
    command = start_process("command_api").wait_until_ready()
    ada, grace = create(command, "ada"), create(command, "grace")
    wait_for(owner, ada, 1, "ada")
    wait_for(owner, grace, 1, "grace")
    assert command.stop() == 0
    settings = make_settings(broker=True)
    damage_in_topic(owner, settings, ada, append_unpublished(start_process, ada, "Ada"))

    command = start_process("command_api").wait_until_ready()
    rename(command, ada, "Ada Lovelace")
    rename(command, grace, "Grace Hopper")
    wait_for(owner, grace, 2, "Grace Hopper")
    eventually(lambda: len(parked(owner)) == 1, what="the user is parked")
    listed = operate("parked", "list")
    assert listed.status == 1
    assert f"user {ada.id} is held back from the read model from version 2 (position 3) on, 2 events" in listed.stdout
    assert row_of(owner, ada) == (1, "ada")
    shown = operate("parked", "show", ada.id, "--json").result["parked"][0]
    assert shown["record"]["value"] == '{"user": {'
    assert [event["version"] for event in shown["events"]] == [2, 3]

    retried = operate("parked", "retry", ada.id, "--operator", "olga")
    assert (retried.status, row_of(owner, ada)) == (0, (3, "Ada Lovelace"))
    assert operate("parked", "list").stdout == "nothing is parked\n"
    rename(command, ada, "Ada King")
    wait_for(owner, ada, 4, "Ada King")
    operation = owner.execute("SELECT operator, operation, parameters, outcome FROM log.operations").fetchone()
    assert operation is not None
    assert (operation["operator"], operation["operation"], operation["outcome"]) == ("olga", "parked.retry", "done")
    assert operation["parameters"]["user_id"] == ada.id


@pytest.mark.broker
def test_a_record_that_is_no_event_holds_nobody_back(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner, operate: Operate
) -> None:
    start_process("projector")
    command = start_process("command_api").wait_until_ready()
    ada = create(command, "ada")
    wait_for(owner, ada, 1, "ada")
    settings = make_settings(broker=True)
    plant(settings, ada.id, partition_of(UUID(ada.id), PARTITIONS), b"garbage")
    plant(settings, "nobody", 0, b"\xff\x00", ce_id=str(new_id()))
    rename(command, ada, "Ada")
    wait_for(owner, ada, 2, "Ada")
    eventually(lambda: len(parked(owner)) == 2, what="both records are set aside")
    assert [one["user_id"] for one in parked(owner)] == [None, None]
    # a relay that starts finds the last of its own before the stranger's
    assert command.stop() == 0
    command = start_process("command_api").wait_until_ready()
    rename(command, ada, "Ada Lovelace")
    wait_for(owner, ada, 3, "Ada Lovelace")
    numbers = [one["id"] for one in operate("parked", "list", "--json").result["parked"]]
    assert operate("parked", "retry", "--all").status == 0
    assert operate("parked", "discard", str(numbers[0])).status == 2
    for number in numbers:
        assert operate("parked", "discard", str(number), "--reason", "a stranger's").status == 0
    assert parked(owner) == []


@pytest.mark.broker
def test_an_altered_event_of_the_log_is_held_back_everywhere_until_it_is_restored(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner, operate: Operate
) -> None:
    start_process("projector")
    command = start_process("command_api").wait_until_ready()
    ada, grace = create(command, "ada"), create(command, "grace")
    wait_for(owner, grace, 1, "grace")
    assert command.stop() == 0
    sealed = alter(owner, append_unpublished(start_process, ada, "Ada"))

    command = start_process("command_api").wait_until_ready()
    eventually(lambda: len(parked_by_relay(owner)) == 1, what="the relay parks the user")
    restored = rename_restored(command, owner, ada, sealed)
    rename(command, grace, "Grace Hopper")
    wait_for(owner, grace, 2, "Grace Hopper")
    settings = make_settings(broker=True)
    assert sorted(published(settings)) == [1, 2, restored + 1]
    assert row_of(owner, ada) == (1, "ada")
    listed = operate("parked", "list")
    assert f"user {ada.id} is held back from the topics from version 2 (position 3) on, 2 events" in listed.stdout
    with command.client() as client:
        assert client.get("/readyz").json()["parts"]["relay"] == "leading, 1 users parked"

    refused = operate("parked", "retry", ada.id)
    assert refused.status == 1
    assert "held back still" in refused.stdout
    restore(owner, 3, sealed)
    assert operate("parked", "retry", ada.id).status == 0
    wait_for(owner, ada, 3, "Ada Lovelace")
    mine = [record.position for record in records_of(settings, settings.events_topic) if record.key == ada.id]
    assert mine == [1, 3, restored]
    assert sorted(published(settings)) == [1, 2, 3, 4, 5]


def rename_restored(command: Process, owner: Owner, person: Person, sealed: bytes) -> int:
    """The command API decides on the newest event: it is restored for that moment, and altered again."""
    restore(owner, 3, sealed)
    position = rename(command, person, "Ada Lovelace")
    alter(owner, 3)
    return position


def test_a_discarded_event_is_passed_over_for_ever_and_the_reason_is_kept(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner, operate: Operate
) -> None:
    start_process("projector")
    command = start_process("command_api").wait_until_ready()
    ada, others = create(command, "ada"), [create(command, f"user{number}") for number in range(9)]
    wait_for(owner, ada, 1, "ada")
    assert command.stop() == 0
    position = append_unpublished(start_process, ada, "Ada")
    append_unpublished(start_process, ada, "Ada Lovelace")
    alter(owner, position)

    command = start_process("command_api").wait_until_ready()
    eventually(lambda: len(parked_by_relay(owner)) == 1, what="the relay parks the user")
    for other in others:
        rename(command, other, "Passed by")
        wait_for(owner, other, 2, "Passed by")
    discarded = operate("parked", "discard", ada.id, "--reason", "tampered with, ticket 7", "--operator", "olga")
    assert discarded.status == 0, discarded.stdout
    wait_for(owner, ada, 3, "Ada Lovelace")
    kept = owner.execute("SELECT position, operator, reason FROM log.discarded").fetchall()
    assert kept == [{"position": position, "operator": "olga", "reason": "tampered with, ticket 7"}]
    assert [one["operation"] for one in owner.execute("SELECT operation FROM log.operations")] == ["parked.discard"]
    eventually(lambda: (parked(owner), parked_by_relay(owner)) == ([], []), what="nothing is parked")
    settings = make_settings(broker=True)
    assert sorted(published(settings)) == [*range(1, 11), *range(12, 22)]


def test_a_row_that_the_table_does_not_take_is_parked_and_applied_once_the_table_does(
    start_process: StartProcess, owner: Owner, operate: Operate
) -> None:
    start_process("projector")
    command = start_process("command_api").wait_until_ready()
    people = [create(command, f"user{number}") for number in range(20)]
    wait_for(owner, people[-1], 1, "user19")
    owner.execute("ALTER TABLE read_model.users ADD CONSTRAINT strict CHECK (display_name <> 'Refused')")
    ada = people[3]
    for person in people:
        rename(command, person, "Refused" if person is ada else "Taken")
    for person in people:
        if person is not ada:
            wait_for(owner, person, 2, "Taken")
    eventually(lambda: len(parked(owner)) == 1, what="one is parked")
    assert {name: parked(owner)[0][name] for name in ("user_id", "version")} == {"user_id": ada.id, "version": 2}
    assert "CheckViolation (23514), constraint strict" in parked(owner)[0]["reason"]
    refused = operate("parked", "retry", ada.id)
    assert (refused.status, parked(owner)[0]["tries"]) == (1, 1)
    rename(command, ada, "Refused")
    owner.execute("ALTER TABLE read_model.users DROP CONSTRAINT strict")
    rename(command, ada, "Taken")
    assert operate("parked", "retry", "--all").status == 0
    assert row_of(owner, ada) == (3, "Taken")


def test_a_relay_that_does_not_know_a_new_kek_stops_and_parks_nobody(start_process: StartProcess, owner: Owner) -> None:
    left_out = start_process("command_api").wait_until_ready()
    command = start_process("command_api", relay=False, **keks(NEW_KEK, KEK)).wait_until_ready()
    create(command, "ada")
    halted = f"halted: this KEK is {OLD.id}, and there are keys that {NEW.id} wrapped"

    def readiness() -> str:
        return httpx.get(f"{left_out.url}/readyz", verify=PLAIN, trust_env=False).text

    def published() -> bool:
        return bool(owner.execute("SELECT 1 FROM log.publication WHERE position >= 1").fetchall())

    eventually(lambda: halted in readiness(), what="the relay halts")
    assert not published()
    assert owner.execute("SELECT * FROM log.parked").fetchall() == []
    start_process("command_api", **keks(KEK, NEW_KEK))
    eventually(published, what="one that knows it goes on")


def test_more_than_single_events_faults_explain_stops_the_projector(start_process: StartProcess, owner: Owner) -> None:
    command = start_process("command_api").wait_until_ready()
    for number in range(4):
        create(command, f"user{number}")
    owner.execute("ALTER TABLE read_model.users ADD CONSTRAINT strict CHECK (display_name IS NULL)")
    projector = start_process("projector", parked_limit=3)

    def readiness() -> str:
        try:
            return httpx.get(f"{projector.url}/readyz", verify=PLAIN, trust_env=False).text
        except httpx.TransportError:
            return ""

    eventually(lambda: "more than PARKED_LIMIT (3)" in readiness(), what="the projector halts")
    assert parked(owner) == []
    owner.execute("ALTER TABLE read_model.users DROP CONSTRAINT strict")
    eventually(
        lambda: owner.execute("SELECT count(*) AS n FROM read_model.users").fetchone() == {"n": 4},
        what="it goes on by itself",
    )


@pytest.mark.broker
def test_the_projector_dies_while_it_parks(start_process: StartProcess, owner: Owner) -> None:
    command = start_process("command_api").wait_until_ready()
    ada, grace = create(command, "ada"), create(command, "grace")
    owner.execute("ALTER TABLE read_model.users ADD CONSTRAINT strict CHECK (display_name <> 'ada')")
    doomed = start_process("projector", projector_instance="one", failpoints="projector.parking=kill")
    assert doomed.wait_until_dead() == -signal.SIGKILL
    assert (parked(owner), row_of(owner, grace)) == ([], None)
    start_process("projector", projector_instance="one")
    wait_for(owner, grace, 1, "grace")
    assert [one["user_id"] for one in parked(owner)] == [ada.id]


@pytest.mark.broker
def test_the_relay_dies_while_it_parks_and_while_it_publishes_after_all(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner, operate: Operate
) -> None:
    command = start_process("command_api").wait_until_ready()
    ada, grace = create(command, "ada"), create(command, "grace")
    settings = make_settings(broker=True)
    eventually(lambda: len(published(settings)) == 2, what="both are published")
    assert command.stop() == 0
    sealed = alter(owner, append_unpublished(start_process, ada, "Ada"))
    append_unpublished(start_process, grace, "Grace")
    doomed = start_process("command_api", failpoints="relay.parked=kill")
    assert doomed.wait_until_dead() == -signal.SIGKILL
    assert [one["position"] for one in parked_by_relay(owner)] == [3]
    assert len(published(settings)) == 2

    doomed = start_process("command_api", failpoints="relay.retried=kill").wait_until_ready()
    eventually(lambda: sorted(published(settings)) == [1, 2, 4], what="the others' are published")
    restore(owner, 3, sealed)
    owner.execute("UPDATE log.parked SET retry = true")
    assert doomed.wait_until_dead() == -signal.SIGKILL
    start_process("command_api").wait_until_ready()
    eventually(lambda: parked_by_relay(owner) == [], what="the user is released")
    assert sorted(published(settings)) == [1, 2, 3, 4]
    assert operate("parked", "list").status == 0


@pytest.mark.parametrize("point", ["parked.retrying", "parked.retried"])
def test_a_retry_that_dies_has_done_all_or_nothing(
    point: str, start_process: StartProcess, owner: Owner, operate: Operate
) -> None:
    ada = parked_person(start_process, owner)
    assert operate("parked", "retry", ada.id, FAILPOINTS=f"{point}=kill").status == -signal.SIGKILL
    done = point == "parked.retried"
    assert (len(parked(owner)), row_of(owner, ada)) == ((0, (1, "ada")) if done else (1, None))
    assert operate("parked", "retry", "--all").status == 0
    assert (parked(owner), row_of(owner, ada)) == ([], (1, "ada"))


@pytest.mark.parametrize("point", ["parked.discarding", "parked.discarded"])
def test_a_discard_that_dies_has_done_all_or_nothing(
    point: str, start_process: StartProcess, owner: Owner, operate: Operate
) -> None:
    ada = parked_person(start_process, owner)
    reason = ("--reason", "a test")
    assert operate("parked", "discard", ada.id, *reason, FAILPOINTS=f"{point}=kill").status == -signal.SIGKILL
    done = point == "parked.discarded"
    counts = owner.execute(
        "SELECT (SELECT count(*) FROM log.discarded) AS discarded, (SELECT count(*) FROM log.operations) AS operations"
    ).fetchone()
    assert counts == {"discarded": int(done), "operations": int(done)}
    assert operate("parked", "discard", ada.id, *reason).status == (1 if done else 0)
    assert (parked(owner), row_of(owner, ada)) == ([], None)


def parked_person(start_process: StartProcess, owner: Owner) -> Person:
    """Someone whom the table did not take, and would take now."""
    command = start_process("command_api").wait_until_ready()
    ada = create(command, "ada")
    owner.execute("ALTER TABLE read_model.users ADD CONSTRAINT strict CHECK (display_name <> 'ada')")
    start_process("projector")
    eventually(lambda: len(parked(owner)) == 1, what="the user is parked")
    owner.execute("ALTER TABLE read_model.users DROP CONSTRAINT strict")
    return ada
