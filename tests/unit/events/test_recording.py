"""Rows of the log and back: with the user's key, without it, and after they were erased."""

from typing import Any
from uuid import UUID

import pytest

from command_api.decide import decide
from events.envelope import history_envelope, snapshot_envelope
from events.keyring import Kek, Keyring
from events.recording import TOMBSTONE, KeyErased, event_of, record_of, row_of
from events.sealing import BrokenSeal
from events.user import UserEvent, evolve
from events.wire import user_to_wire
from projector.rows import row_of as row_of_model
from tests.people import ADA, ADA_CREATED, ADA_ID, METADATA, NOON, ORIGIN, change, delete
from tests.tokens import KEK

KEYRING = Keyring(Kek(KEK))


def stored(event: UserEvent, wrapped: bytes | None, *, position: int = 7) -> dict[str, Any]:
    row = row_of(event, METADATA, KEYRING, None)
    return {
        **row,
        "position": position,
        "user_id": ADA_ID,
        "version": event.user.version,
        "event_id": UUID(row["event_id"]),
        "sealed": bytes.fromhex(row["sealed"][2:]),
        "recorded_at": NOON,
        "wrapped": bytes.fromhex(row["wrapped"][2:]) if wrapped is None else wrapped,
    }


def changed() -> UserEvent:
    event = decide(ADA, change({"team": "looms"}, email="other@example.com", roles=("user",)))
    assert event is not None
    return event


def test_an_event_is_read_as_it_was_written() -> None:
    assert event_of(stored(changed(), None), KEYRING).event == changed()
    assert record_of(stored(changed(), None), KEYRING) == user_to_wire(changed().user)


def test_an_erased_users_event_keeps_its_shape_and_says_so() -> None:
    recorded = event_of(stored(changed(), TOMBSTONE), KEYRING)
    assert (recorded.version, recorded.type_name, recorded.metadata) == (2, "UserUpdated", METADATA)
    record = user_to_wire(recorded.event.user)
    assert record["erased"]
    assert (record["email"], record["display_name"], record["attributes"]) == (None, None, None)
    assert record["roles"] == ["user"]
    assert {name: change.erased for name, change in recorded.event.changes.items()} == {
        "email": True,
        "attributes": True,
        "roles": False,
    }
    assert record_of(stored(changed(), TOMBSTONE), KEYRING) == record


def test_nothing_personal_of_an_erased_user_is_published() -> None:
    recorded = event_of(stored(changed(), TOMBSTONE), KEYRING)
    history = history_envelope(recorded, ORIGIN).value
    assert history is not None
    assert b'"email":null' in history
    assert b"example.com" not in history
    assert snapshot_envelope(recorded, ORIGIN).value is None


def test_an_erased_users_events_fold_without_what_was_erased() -> None:
    created = event_of(stored(ADA_CREATED, TOMBSTONE), KEYRING).event
    updated = event_of(stored(changed(), TOMBSTONE), KEYRING).event
    folded = evolve(created.user, updated)
    assert (folded.roles, folded.version, folded.erased) == (("user",), 2, True)


def test_a_row_of_the_read_model_shows_an_erased_user_as_deleted() -> None:
    row = row_of_model(record_of(stored(changed(), TOMBSTONE), KEYRING), 7)
    assert row["deleted_at"] == row["updated_at"]
    assert not row.keys() & {"email", "email_canonical", "display_name", "attributes", "roles"}
    deleted = decide(changed().user, delete())
    assert deleted is not None
    row = row_of_model(record_of(stored(deleted, TOMBSTONE), KEYRING), 8)
    assert row["deleted_at"] == user_to_wire(deleted.user)["deleted_at"]


def test_a_key_that_is_not_there_without_a_tombstone_is_damage() -> None:
    row = stored(changed(), None) | {"wrapped": None}
    with pytest.raises(BrokenSeal, match="data key is not there"):
        event_of(row, KEYRING)
    with pytest.raises(BrokenSeal, match="data key is not there"):
        record_of(row, KEYRING)


def test_nothing_is_sealed_for_an_erased_user() -> None:
    with pytest.raises(KeyErased):
        row_of(changed(), METADATA, KEYRING, TOMBSTONE)
