import re
from dataclasses import replace
from uuid import UUID

import orjson
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event

from command_api.decide import Command, decide
from events.envelope import (
    Headers,
    NotOurEvent,
    headers_of,
    history_envelope,
    open_envelope,
    sequence_of,
    snapshot_envelope,
)
from events.user import UserEvent
from tests.people import ADA, ADA_CREATED, ADA_ID, METADATA, ORIGIN, change, delete, recorded


def decided(command: Command) -> UserEvent:
    event = decide(ADA, command)
    assert event is not None
    return event


UPDATED = decided(change(display_name="Ada Lovelace"))
DELETED = decided(delete())


@pytest.mark.parametrize("event", [ADA_CREATED, UPDATED, DELETED], ids=lambda event: type(event).__name__)
def test_the_cloudevents_sdk_reads_every_event(event: UserEvent) -> None:
    envelope = history_envelope(recorded(event), ORIGIN)
    assert envelope.value is not None
    read = from_binary_event(KafkaMessage(headers=dict(envelope.headers), key=envelope.key, value=envelope.value))
    assert read.get_specversion() == "1.0"
    assert read.get_id() == str(event.id)
    assert read.get_type() == f"muster.{type(event).__name__}.v1"
    assert read.get_source() == ORIGIN.source
    assert read.get_subject() == str(ADA_ID)
    assert read.get_time() == recorded(event).recorded_at
    assert read.get_extension("sequence") == "0000000000000000007"
    assert read.get_extension("userversion") == str(event.user.version)
    assert read.get_extension("partitionkey") == str(ADA_ID)
    assert read.get_data() == orjson.loads(envelope.value)


def test_extension_names_are_lower_case_letters_and_digits() -> None:
    names = [name for name, _ in headers_of(recorded(ADA_CREATED), ORIGIN) if name != "content-type"]
    assert all(re.fullmatch(r"ce_[a-z0-9]{1,20}", name) for name in names)
    assert len(set(names)) == len(names)


def test_a_header_is_left_out_when_there_is_nothing_to_say() -> None:
    envelope = history_envelope(recorded(ADA_CREATED, metadata=replace(METADATA, traceparent=None)), ORIGIN)
    assert "ce_traceparent" not in dict(envelope.headers)


def test_a_retry_gives_the_same_bytes() -> None:
    assert history_envelope(recorded(ADA_CREATED), ORIGIN) == history_envelope(recorded(ADA_CREATED), ORIGIN)


def test_sequences_sort_as_text_like_positions() -> None:
    sequences = [
        dict(headers_of(recorded(ADA_CREATED, position=position), ORIGIN))["ce_sequence"]
        for position in (1, 9, 10, 99, 2**31, 2**63 - 1)
    ]
    assert sequences == sorted(sequences)


def test_the_snapshot_is_the_current_record() -> None:
    envelope = snapshot_envelope(recorded(UPDATED), ORIGIN)
    assert envelope.value is not None
    assert orjson.loads(envelope.value)["user"]["display_name"] == "Ada Lovelace"
    assert envelope.key == str(ADA_ID).encode()


def test_the_snapshot_of_a_deletion_is_a_tombstone() -> None:
    assert snapshot_envelope(recorded(DELETED), ORIGIN).value is None


def test_the_history_of_a_deletion_has_a_body() -> None:
    value = history_envelope(recorded(DELETED), ORIGIN).value
    assert value is not None
    assert orjson.loads(value)["changes"] == {"deleted_at": {"old": None, "new": "2026-03-01T13:00:00.250000Z"}}


def test_the_projector_opens_what_the_relay_wrote() -> None:
    envelope = history_envelope(recorded(ADA_CREATED), ORIGIN)
    opened = open_envelope(envelope.headers, envelope.value)
    assert opened.position == 7
    assert opened.event_id == ADA_CREATED.id
    assert opened.type_name == "muster.UserCreated.v1"
    assert opened.correlation_id == "correlation-1"
    assert opened.user["created_at"] == "2026-03-01T12:00:00.250000Z"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("ce_sequence", b"7")],
        [("ce_id", str(UUID(int=1)).encode())],
        [("ce_sequence", b"seven"), ("ce_id", str(UUID(int=1)).encode())],
        [("ce_sequence", b"7"), ("ce_id", b"one")],
        [("ce_sequence", b"7"), ("ce_id", b"\xff")],
    ],
)
def test_a_record_without_place_or_id_is_not_ours(headers: Headers) -> None:
    with pytest.raises(NotOurEvent):
        sequence_of(headers)


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"null", b"7", b"{}", b'{"changes": {}}', b"\xff"])
def test_a_record_without_our_data_is_not_ours(value: bytes | None) -> None:
    with pytest.raises(NotOurEvent, match="position 7"):
        open_envelope(history_envelope(recorded(ADA_CREATED), ORIGIN).headers, value)
