"""Events on Kafka: CloudEvents 1.0, Kafka protocol binding 1.0.2, binary content mode, JSON data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson

from events.recording import Position, RecordedEvent
from events.user import UserDeleted
from events.wire import changes_to_wire, time_to_wire, user_to_wire

Headers = Sequence[tuple[str, bytes]]
# `sequence` is compared as text (CloudEvents sequence extension): the width of the largest bigint
SEQUENCE_DIGITS: Final = 19


class NotOurEvent(Exception):
    """A record of the topic does not have the envelope that Muster writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    key: bytes
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What the projector needs of a record: the position, the record of the user and who is behind it."""

    position: Position
    event_id: UUID
    type_name: str
    correlation_id: str
    user: Mapping[str, Any]


def headers_of(recorded: RecordedEvent, source: str) -> list[tuple[str, bytes]]:
    """The same for every retry and replay of an event."""
    metadata, user = recorded.metadata, recorded.event.user
    wire_type = f"muster.{recorded.type_name}.v{recorded.schema}"
    headers = [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_id", str(recorded.event.id).encode()),
        ("ce_type", wire_type.encode()),
        ("ce_source", source.encode()),
        ("ce_subject", str(user.id).encode()),
        ("ce_time", time_to_wire(recorded.recorded_at).encode()),
        ("ce_dataschema", f"urn:muster:schema:{recorded.type_name}:{recorded.schema}".encode()),
        ("ce_sequence", b"%0*d" % (SEQUENCE_DIGITS, recorded.position)),
        ("ce_userversion", b"%d" % user.version),
        ("ce_correlationid", metadata.correlation_id.encode()),
        ("ce_causationid", metadata.causation_id.encode()),
    ]
    if metadata.traceparent is not None:
        headers.append(("ce_traceparent", metadata.traceparent.encode()))
    return headers


def cloud_event(recorded: RecordedEvent, source: str) -> dict[str, Any]:
    """The same event in the JSON format of CloudEvents 1.0 (section 2.4): attributes as the headers have them."""
    attributes = {name.removeprefix("ce_"): value.decode() for name, value in headers_of(recorded, source)}
    attributes["datacontenttype"] = attributes.pop("content-type")
    return {**attributes, "data": _history_data(recorded)}


def history_envelope(recorded: RecordedEvent, source: str) -> Envelope:
    """For the history topic: the whole record after the change, and what changed. Deletions have a body too.

    Of an erased user, whenever it is sent, without the personal values.
    """
    return Envelope(
        key=str(recorded.event.user.id).encode(),
        value=orjson.dumps(_history_data(recorded)),
        headers=headers_of(recorded, source),
    )


def _history_data(recorded: RecordedEvent) -> dict[str, Any]:
    return {"user": user_to_wire(recorded.event.user), "changes": changes_to_wire(recorded.event.changes)}


def snapshot_envelope(recorded: RecordedEvent, source: str) -> Envelope:
    """For the compacted topic: the current record, or a tombstone when the user is deleted or erased."""
    user = recorded.event.user
    deleted = user.erased or isinstance(recorded.event, UserDeleted)
    return Envelope(
        key=str(user.id).encode(),
        value=None if deleted else orjson.dumps({"user": user_to_wire(user)}),
        headers=headers_of(recorded, source),
    )


def sequence_of(headers: Headers) -> tuple[Position, UUID]:
    """Position and event id of a record on either topic; raises NotOurEvent."""
    found = dict(headers)
    try:
        return Position(int(found["ce_sequence"])), UUID(found["ce_id"].decode())
    except (KeyError, ValueError) as error:
        raise NotOurEvent(f"no usable ce_sequence and ce_id: {error!r}") from None


def place_in(headers: Headers) -> tuple[Position, UUID] | None:
    """As `sequence_of`; None for a record that is none of ours."""
    try:
        return sequence_of(headers)
    except NotOurEvent:
        return None


def open_envelope(headers: Headers, value: bytes | None) -> Opened:
    """Read a record of the history topic; raises NotOurEvent."""
    position, event_id = sequence_of(headers)
    found = dict(headers)
    if value is None:
        raise NotOurEvent(f"position {position} has no data")
    try:
        data = orjson.loads(value)
        return Opened(
            position=position,
            event_id=event_id,
            type_name=found["ce_type"].decode(),
            correlation_id=found.get("ce_correlationid", b"").decode(),
            user=data["user"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise NotOurEvent(f"position {position}: {error!r}") from None
