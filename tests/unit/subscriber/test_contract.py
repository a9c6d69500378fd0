"""The subscriber reads what the store writes: were one of them to change alone, this would fail."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import orjson
import pytest

from command_api.decide import decide
from events.envelope import Envelope, cloud_event, history_envelope, snapshot_envelope
from events.partitioning import partition_of as partition_in_the_store
from events.user import User, UserEvent
from events.wire import changes_to_wire, erased_event, value_to_wire
from muster_subscriber.contract import Event, FieldChange, Kind
from muster_subscriber.contract import User as SeenUser
from muster_subscriber.decoding import Ignored, Unreadable, event_of, event_of_feed
from muster_subscriber.subscription import partition_of
from muster_subscriber.testing import MusterUsers
from tests.people import ADA, ADA_CREATED, ORIGIN, change, delete, recorded

GOLDEN = Path(__file__).parents[2] / "contract" / "golden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    topic: str = "users.events.v1"
    partition: int = 0
    offset: int = 0
    key: bytes | None = None


def written(envelope: Envelope) -> Written:
    return Written(value=envelope.value, headers=tuple(envelope.headers))


def happened(event: UserEvent | None) -> UserEvent:
    assert event is not None
    return event


EVENTS = {
    Kind.CREATED: ADA_CREATED,
    Kind.UPDATED: happened(decide(ADA, change({"team": None, "floor": 3}, email="ada@lovelace.example"))),
    Kind.DELETED: happened(decide(ADA, delete())),
}


def as_seen(user: User) -> SeenUser:
    """The record of the store as the subscriber should have it."""
    values: dict[str, Any] = {one.name: getattr(user, one.name) for one in fields(User)}
    blank: dict[str, Any] = dict.fromkeys(("email", "display_name", "attributes")) if user.erased else {}
    values |= {"status": user.status.value} | blank
    return SeenUser(**values)


def check(seen: Event | Ignored, event: UserEvent, kind: Kind) -> None:
    assert isinstance(seen, Event)
    assert seen.kind is kind
    assert seen.user == as_seen(event.user)
    assert (seen.user_id, seen.version, seen.event_id) == (event.user.id, event.user.version, event.id)
    assert seen.position == 7
    assert (seen.correlation_id, seen.causation_id) == ("correlation-1", "causation-1")
    wire = changes_to_wire(event.changes)
    assert seen.changes == {
        name: FieldChange(old=one["old"], new=one["new"], erased=one.get("erased", False)) for name, one in wire.items()
    }


@pytest.mark.parametrize("kind", EVENTS)
def test_what_the_store_publishes_is_read_as_it_was_meant(kind: Kind) -> None:
    event = recorded(EVENTS[kind])
    check(event_of(written(history_envelope(event, ORIGIN)), snapshot=False), event.event, kind)
    feed = orjson.loads(orjson.dumps(cloud_event(event, ORIGIN)))
    check(event_of_feed(feed), event.event, kind)


@pytest.mark.parametrize("kind", EVENTS)
def test_so_is_what_it_publishes_of_the_erased(kind: Kind) -> None:
    event = recorded(erased_event(EVENTS[kind]))
    told = Kind.ERASED if kind is Kind.DELETED else kind
    check(event_of(written(history_envelope(event, ORIGIN)), snapshot=False), event.event, told)
    snapshot = event_of(written(snapshot_envelope(event, ORIGIN)), snapshot=True)
    assert isinstance(snapshot, Event)
    assert (snapshot.kind, snapshot.user) == (Kind.DELETED, None)


def test_a_snapshot_has_states_and_tombstones() -> None:
    states = {
        kind: event_of(written(snapshot_envelope(recorded(event), ORIGIN)), snapshot=True)
        for kind, event in EVENTS.items()
    }
    assert all(isinstance(state, Event) for state in states.values())
    assert [(state.kind, state.version, state.user) for state in states.values() if isinstance(state, Event)] == [
        (Kind.STATE, 1, as_seen(ADA)),
        (Kind.STATE, 2, as_seen(EVENTS[Kind.UPDATED].user)),
        (Kind.DELETED, 2, None),
    ]


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("User*.json")), ids=lambda file: file.name)
def test_every_golden_record_is_read_whole(file: Path) -> None:
    """No field of it is one that the subscriber does not know."""
    for topic, record in orjson.loads(file.read_bytes()).items():
        if topic not in {"history", "snapshot"}:
            continue
        headers = tuple((name, value.encode()) for name, value in record["headers"].items())
        value = None if record["value"] is None else orjson.dumps(record["value"])
        event = event_of(Written(value=value, headers=headers), snapshot=topic == "snapshot")
        assert isinstance(event, Event)
        assert event.type == record["headers"]["ce_type"]
        assert event.kind is not Kind.OTHER
        if event.user is None:
            continue
        told = record["value"]["user"]
        assert told.keys() <= {one.name for one in fields(SeenUser)}
        for name, seen in ((name, getattr(event.user, name)) for name in told):
            assert value_to_wire(seen) == told[name], name
        assert event.changes.keys() == record["value"].get("changes", {}).keys()


def test_what_is_not_known_is_passed_over() -> None:
    envelope = history_envelope(recorded(ADA_CREATED), ORIGIN)
    data = orjson.loads(envelope.value or b"")
    data["user"]["shoe_size"] = 37
    data["since"] = "2027"
    del data["user"]["display_name"], data["user"]["password_changed_at"]
    headers = {**dict(envelope.headers), "ce_type": b"muster.UserPromoted.v3", "ce_mood": b"good", "other": b"\xff"}
    event = event_of(Written(value=orjson.dumps(data), headers=tuple(headers.items())), snapshot=False)
    assert isinstance(event, Event)
    assert event.kind is Kind.OTHER
    assert event.user is not None
    assert (event.user.email, event.user.display_name) == (ADA.email, None)


ENVELOPE = history_envelope(recorded(ADA_CREATED), ORIGIN)
HEADERS = dict(ENVELOPE.headers)


@pytest.mark.parametrize(
    ("headers", "ignored"),
    [
        ({}, Ignored.FOREIGN),
        ({"ce_id": b"1", "ce_type": b"billing.Paid.v1", "ce_subject": b"1", "ce_sequence": b"1"}, Ignored.FOREIGN),
        ({**HEADERS, "sample": b"yes"}, Ignored.SAMPLE),
    ],
)
def test_what_is_no_event_is_ignored(headers: dict[str, bytes], ignored: Ignored) -> None:
    assert event_of(Written(value=ENVELOPE.value, headers=tuple(headers.items())), snapshot=False) is ignored


def test_a_replayed_event_is_an_event() -> None:
    replayed = (*ENVELOPE.headers, ("replay", b"1"))
    check(event_of(Written(value=ENVELOPE.value, headers=replayed), snapshot=False), ADA_CREATED, Kind.CREATED)


def without(name: str) -> bytes:
    data = orjson.loads(ENVELOPE.value or b"")
    del data["user"][name]
    return orjson.dumps(data)


def with_time(text: str) -> bytes:
    data = orjson.loads(ENVELOPE.value or b"")
    data["user"]["created_at"] = text
    return orjson.dumps(data)


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (None, {}, "no data"),
        (b"{", {}, "the data is not JSON"),
        (b"[]", {}, "the data is no object"),
        (b"{}", {}, "user is no object"),
        (without("version"), {}, "version is no number"),
        (without("status"), {}, "status is no text"),
        (without("roles"), {}, "roles is no list of texts"),
        (with_time("secret"), {}, "created_at is no time"),
        (with_time("2026-01-01T00:00:00"), {}, "created_at has no offset"),
        (ENVELOPE.value, {"ce_userversion": b"2"}, "ce_userversion is not user.version"),
        (ENVELOPE.value, {"ce_subject": b"0192d3c8-5b0e-7c31-9d5e-0a3f6f6f2b12"}, "ce_subject is not user.id"),
        (ENVELOPE.value, {"ce_sequence": b"-1"}, "sequence is no number"),
        (ENVELOPE.value, {"ce_source": b"\xff"}, "the headers are not UTF-8"),
    ],
)
def test_what_cannot_be_read_says_why_and_no_more(value: bytes | None, headers: dict[str, bytes], reason: str) -> None:
    record = Written(value=value, headers=tuple((HEADERS | headers).items()))
    with pytest.raises(Unreadable) as caught:
        event_of(record, snapshot=False)
    assert str(caught.value) == reason


def test_the_partition_is_the_stores() -> None:
    assert all(partition_of(ADA.id, count) == partition_in_the_store(ADA.id, count) for count in range(1, 50))


def test_the_fixtures_records_look_like_the_stores(muster_users: MusterUsers) -> None:
    ada = muster_users.create(email="ada@example.com", display_name="Ada")
    muster_users.update(ada, display_name=None)
    muster_users.delete(ada)
    stores = [history_envelope(recorded(event), ORIGIN) for event in EVENTS.values()]
    for made, real in zip(muster_users.events, stores, strict=True):
        shown, meant = dict(made.headers), dict(real.headers)
        assert [*shown] == [name for name in meant if name != "ce_traceparent"]
        for name in ("content-type", "ce_specversion", "ce_type", "ce_source", "ce_dataschema"):
            assert shown[name] == meant[name]
        assert all(len(shown[name]) == len(meant[name]) for name in ("ce_id", "ce_time", "ce_sequence"))
        ours, theirs = orjson.loads(made.value or b""), orjson.loads(real.value or b"")
        assert [*ours["user"]] == [*theirs["user"]]
        assert ours.keys() == theirs.keys()
