"""Events on Kafka: CloudEvents 1.0, Kafka protocol binding 1.0.2, binary content mode, JSON data."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self
from uuid import UUID

import orjson

from events.recording import Position, RecordedEvent
from events.user import UserDeleted
from events.versions import Document, as_newest, newest
from events.wire import changes_to_wire, own_to_wire, time_to_wire, user_to_wire
from runtime.broker_settings import BrokerSettings
from runtime.settings import Settings

Header = tuple[str, bytes]
Headers = Sequence[Header]
CONTENT_TYPE: Final[Header] = ("content-type", b"application/json")
SPECVERSION: Final[Header] = ("ce_specversion", b"1.0")
# `sequence` is compared as text (CloudEvents sequence extension): the width of the largest bigint
SEQUENCE_DIGITS: Final = 19
DATASCHEMA: Final = "ce_dataschema"
# what a record of the snapshot topic holds, whichever event it is of
SNAPSHOT: Final = "UserSnapshot"
SNAPSHOT_VERSION: Final = 1
_TYPE_VERSION: Final = re.compile(rb"\.v[1-9][0-9]{0,4}\Z")
_TYPE: Final = re.compile(r"muster\.([A-Za-z]+)\.v([1-9][0-9]{0,4})", re.ASCII)


class NotOurEvent(Exception):
    """A record of the topic does not have the envelope that Muster writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What records say of where they are from: `source` of the events, and the URL under which `schemas` are served."""

    source: str
    schemas: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls.named(settings.event_source, settings)

    @classmethod
    def named(cls, source: str, settings: BrokerSettings) -> Self:
        return cls(source=source, schemas=settings.schemas_url.rstrip("/"))

    def schema(self, name: str, version: int) -> str:
        """The URL of a schema in events/schemas."""
        return f"{self.schemas}/{schema_file(name, version)}"


def schema_file(name: str, version: int) -> str:
    return f"{name}.v{version}.json"


def wire_type(type_name: str, version: int) -> str:
    """The CloudEvents type of an event of this version."""
    return f"muster.{type_name}.v{version}"


# not frozen: with that, making one would take twice as long, and two are made of each event
@dataclass(slots=True, kw_only=True)
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


def sequence_bytes(position: int) -> bytes:
    """A position as it is on the wire."""
    return b"%0*d" % (SEQUENCE_DIGITS, position)


def headers_of(recorded: RecordedEvent, origin: Origin) -> list[Header]:
    """The same for every retry and replay of an event, as long as its type has no newer version."""
    return _headers(recorded, origin, origin.schema(recorded.type_name, newest(recorded.type_name)))


def _headers(recorded: RecordedEvent, origin: Origin, schema: str) -> list[Header]:
    metadata, user = recorded.metadata, recorded.event.user
    headers = [
        CONTENT_TYPE,
        SPECVERSION,
        ("ce_id", str(recorded.event.id).encode()),
        ("ce_type", wire_type(recorded.type_name, newest(recorded.type_name)).encode()),
        ("ce_source", origin.source.encode()),
        ("ce_subject", str(user.id).encode()),
        ("ce_time", time_to_wire(recorded.recorded_at).encode()),
        (DATASCHEMA, schema.encode()),
        ("ce_sequence", sequence_bytes(recorded.position)),
        ("ce_userversion", b"%d" % user.version),
        ("ce_correlationid", metadata.correlation_id.encode()),
        ("ce_causationid", metadata.causation_id.encode()),
    ]
    if metadata.traceparent is not None:
        headers.append(("ce_traceparent", metadata.traceparent.encode()))
    return headers


def cloud_event(recorded: RecordedEvent, origin: Origin) -> dict[str, Any]:
    """The same event in the JSON format of CloudEvents 1.0 (section 2.4): attributes as the headers have them."""
    attributes = {name.removeprefix("ce_"): value.decode() for name, value in headers_of(recorded, origin)}
    attributes["datacontenttype"] = attributes.pop("content-type")
    return {**attributes, "data": _history_data(recorded)}


def history_envelope(recorded: RecordedEvent, origin: Origin) -> Envelope:
    """For the history topic: the whole record after the change, and what changed. Deletions have a body too.

    Of an erased user, whenever it is sent, without the personal values.
    """
    return Envelope(
        key=str(recorded.event.user.id).encode(),
        value=orjson.dumps(_history_data(recorded)),
        headers=headers_of(recorded, origin),
    )


def _history_data(recorded: RecordedEvent) -> Document:
    event = recorded.event
    return {"user": user_to_wire(event.user), "changes": changes_to_wire(event.changes), **own_to_wire(event)}


def snapshot_envelope(recorded: RecordedEvent, origin: Origin) -> Envelope:
    """For the compacted topic: the current record, or a tombstone when the user is deleted or erased."""
    user = recorded.event.user
    deleted = user.erased or isinstance(recorded.event, UserDeleted)
    return Envelope(
        key=str(user.id).encode(),
        value=None if deleted else orjson.dumps({"user": user_to_wire(user)}),
        headers=_headers(recorded, origin, origin.schema(SNAPSHOT, SNAPSHOT_VERSION)),
    )


def sequence_of(headers: Headers) -> tuple[Position, UUID]:
    """Position and event id of a record on either topic; raises NotOurEvent."""
    return _sequence_in(dict(headers))


def _sequence_in(found: Mapping[str, bytes]) -> tuple[Position, UUID]:
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
    """Read a record of the history topic, of whichever version, as the newest of its type; raises NotOurEvent."""
    found = dict(headers)
    position, event_id = _sequence_in(found)
    if value is None:
        raise NotOurEvent(f"position {position} has no data")
    try:
        return Opened(
            position=position,
            event_id=event_id,
            type_name=found["ce_type"].decode(),
            correlation_id=found.get("ce_correlationid", b"").decode(),
            user=_document(found["ce_type"], value)["user"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise NotOurEvent(f"position {position}: {error!r}") from None


def fixed_headers(headers: Headers) -> list[Header]:
    """What a record's headers say whichever version it was published in, and wherever schemas were served then."""
    return [
        (name, _TYPE_VERSION.sub(b"", value) if name == "ce_type" else value)
        for name, value in headers
        if name != DATASCHEMA
    ]


def document_of(headers: Headers, value: bytes) -> Document:
    """The data of a record of either topic as the newest version of its type has it; raises KeyError and ValueError."""
    return _document(dict(headers)["ce_type"], value)


def _document(wire_type: bytes, value: bytes) -> Document:
    type_name, version = _type_of(wire_type)
    data = orjson.loads(value)
    return data if version == newest(type_name) else as_newest(type_name, version, {"changes": {}, **data})


@lru_cache(maxsize=64)
def _type_of(wire_type: bytes) -> tuple[str, int]:
    """Name and version; raises ValueError."""
    found = _TYPE.fullmatch(wire_type.decode())
    if found is None:
        raise ValueError("its ce_type is none of ours")
    return found[1], int(found[2])
