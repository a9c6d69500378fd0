"""An event as a row of log.events: what is stored in the clear, what is sealed, and the way back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NewType
from uuid import UUID

from events.keyring import Keyring
from events.sealing import BrokenSeal, associated_data, seal, unseal
from events.user import User, UserEvent, UserId
from events.versions import Document, as_newest, newest
from events.wire import (
    ERASED_CHANGE,
    ERASED_VALUES,
    NAMES,
    PERSONAL,
    changes_to_wire,
    erased_record,
    event_from_wire,
    own_to_wire,
    user_from_wire,
    user_to_wire,
)
from runtime.correlation import Correlation

Position = NewType("Position", int)

# What a row has as the wrapped key of an erased user: no key, and a tombstone that says so. No row at all is damage.
TOMBSTONE: Final = b""
WRAPPED: Final = "CASE WHEN k.erased_at IS NOT NULL THEN ''::bytea ELSE k.wrapped END"


class KeyErased(Exception):
    """The user was erased: nothing is sealed for them any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who did it: a user's or a client's id and the session that they did it in, or what an operator is known as."""

    subject: str
    kind: Literal["user", "service", "operator"]
    session: str | None = None

    def to_wire(self) -> dict[str, str]:
        found: dict[str, str] = {"subject": self.subject, "kind": self.kind}
        return found if self.session is None else found | {"session": self.session}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Who did it and through which request; never personal data, since it stays readable for ever."""

    actor: Actor
    request_id: str
    correlation_id: str
    causation_id: str
    traceparent: str | None = None
    reason: str | None = None

    @classmethod
    def of(cls, correlation: Correlation, actor: Actor, reason: str | None = None) -> "Metadata":
        return cls(
            actor=actor,
            request_id=correlation.request_id,
            correlation_id=correlation.correlation_id,
            causation_id=correlation.causation_id,
            traceparent=correlation.traceparent,
            reason=reason,
        )

    @classmethod
    def from_wire(cls, stored: Mapping[str, Any]) -> "Metadata":
        """Raises KeyError and TypeError."""
        values: dict[str, Any] = {**stored, "actor": Actor(**stored["actor"])}
        return cls(**values)

    def to_wire(self) -> dict[str, Any]:
        """As it is stored: what is not known is left out."""
        found: dict[str, Any] = {
            "actor": self.actor.to_wire(),
            "request_id": self.request_id,
            "correlation_id": self.correlation_id,
            "causation_id": self.causation_id,
        }
        if self.traceparent is not None:
            found["traceparent"] = self.traceparent
        if self.reason is not None:
            found["reason"] = self.reason
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event at its place in the log, read as the newest version of its type, whichever was stored.

    `recorded_at` never goes back from one position to the next.
    """

    position: Position
    recorded_at: datetime
    event: UserEvent
    metadata: Metadata
    type_name: str

    @property
    def user_id(self) -> UserId:
        return self.event.user.id

    @property
    def version(self) -> int:
        return self.event.user.version


def row_of(event: UserEvent, metadata: Metadata, keyring: Keyring, wrapped: bytes | None) -> dict[str, Any]:
    """The JSON that log.append takes for one event.

    `wrapped` is the user's wrapped data key; None makes a new one, which the row then carries to be stored. Raises
    KeyErased.
    """
    if wrapped == TOMBSTONE:
        raise KeyErased
    type_name = NAMES[type(event)]
    schema = newest(type_name)
    user = event.user
    record = user_to_wire(user)
    changes = changes_to_wire(event.changes)
    bound_to = associated_data(
        user_id=user.id, version=user.version, type_name=type_name, schema=schema, event_id=event.id
    )
    changed = sorted(changes)
    personal = {
        "record": {name: record.pop(name) for name in PERSONAL},
        "changes": {name: changes.pop(name) for name in [*changes] if name in PERSONAL},
    }
    row: dict[str, Any] = {
        "type": type_name,
        "schema": schema,
        "event_id": str(event.id),
        "data": {"record": record, "changed": changed, "changes": changes},
        "metadata": metadata.to_wire(),
    }
    if own := own_to_wire(event):
        row["data"]["own"] = own
    if wrapped is None:
        cipher, wrapped = keyring.make(user.id)
        row |= {"wrapped": _hex(wrapped), "kek_id": keyring.kek_id}
    else:
        cipher = keyring.open(user.id, wrapped)
    row["sealed"] = _hex(seal(cipher, personal, bound_to))
    return row


def event_of(row: Mapping[str, Any], keyring: Keyring) -> RecordedEvent:
    """The event of a row of log.events that was joined with WRAPPED of log.user_keys, and may be with `kek_id`.

    An erased user's event has all but the personal values. Raises BrokenSeal and WrongKey.
    """
    personal = _personal(row, keyring)
    data, metadata = row["data"], row["metadata"]
    try:
        if personal is None:
            changed = {name: ERASED_CHANGE for name in data["changed"] if name in PERSONAL}
            personal = {"record": ERASED_VALUES, "changes": changed}
        document: Document = {
            **data.get("own", {}),
            "user": data["record"] | personal["record"],
            "changes": data["changes"] | personal["changes"],
        }
        return RecordedEvent(
            position=Position(row["position"]),
            recorded_at=row["recorded_at"],
            event=event_from_wire(
                event_id=row["event_id"],
                type_name=row["type"],
                document=as_newest(row["type"], row["schema"], document),
            ),
            metadata=Metadata.from_wire(metadata),
            type_name=row["type"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed(row, error) from error


def record_of(row: Mapping[str, Any], keyring: Keyring) -> dict[str, Any]:
    """The record alone, as it is on the wire, of the same row: what a row of the read model is made of.

    Several times as fast as `event_of`. Raises BrokenSeal and WrongKey.
    """
    personal = _personal(row, keyring)
    try:
        record = _record(row, ERASED_VALUES if personal is None else personal["record"])
    except (KeyError, TypeError) as error:
        raise _malformed(row, error) from error
    return erased_record(record) if personal is None else record


def user_of(row: Mapping[str, Any], keyring: Keyring) -> User:
    """The user's state after the event of the same row, as `event_of` has it. Raises BrokenSeal and WrongKey."""
    personal = _personal(row, keyring)
    try:
        return user_from_wire(_record(row, ERASED_VALUES if personal is None else personal["record"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed(row, error) from error


def _record(row: Mapping[str, Any], personal: Mapping[str, Any]) -> dict[str, Any]:
    """Raises KeyError and TypeError."""
    record: dict[str, Any] = row["data"]["record"] | personal
    if row["schema"] != newest(row["type"]):
        record = as_newest(row["type"], row["schema"], {"user": record, "changes": {}})["user"]
    return record


def _personal(row: Mapping[str, Any], keyring: Keyring) -> Any:  # noqa: ANN401 - a JSON document
    """What is sealed; None: it was erased."""
    user_id: UUID = row["user_id"]
    if row["wrapped"] is None:
        raise BrokenSeal("the user's data key is not there")
    if row["wrapped"] == TOMBSTONE:
        return None
    bound_to = associated_data(
        user_id=user_id,
        version=row["version"],
        type_name=row["type"],
        schema=row["schema"],
        event_id=row["event_id"],
    )
    return unseal(keyring.open(user_id, row["wrapped"], row.get("kek_id")), row["sealed"], bound_to)


def _malformed(row: Mapping[str, Any], error: Exception) -> BrokenSeal:
    # the kind of error alone: its text may quote what the user's record says
    kind = type(error).__name__
    return BrokenSeal(f"what it holds is no {row['type']} of schema {row['schema']} as this version knows it ({kind})")


def _hex(value: bytes) -> str:
    # how Postgres writes bytea in text
    return "\\x" + value.hex()
