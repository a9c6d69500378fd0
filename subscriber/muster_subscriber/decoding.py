"""Records of the topics and CloudEvents of the feed, read tolerantly: what is not known is passed over.

Whatever is told of a record that cannot be read names fields, and never their values.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Final, Protocol, cast
from uuid import UUID

from muster_subscriber.contract import Event, FieldChange, Kind, User

KINDS: Final[Mapping[str, Kind]] = {
    "UserCreated": Kind.CREATED,
    "UserUpdated": Kind.UPDATED,
    "UserDeleted": Kind.DELETED,
    "UserErased": Kind.ERASED,
}
# what a record must have to be an event of Muster's at all
ENVELOPE: Final = ("id", "type", "subject", "sequence")
SAMPLES: Final = ("sample", "ce_sample")


class Record(Protocol):
    """As aiokafka's ConsumerRecord."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Ignored(Enum):
    # another producer's
    FOREIGN = "foreign"
    # made up, to show what events look like
    SAMPLE = "sample"


class Unreadable(Exception):
    """An event of Muster's that cannot be read: the message names what is wrong, without personal data."""


def identity_of(record: Record) -> str:
    """What tells a record from any other at its place: the event's id, else a digest of what it holds."""
    for name, value in record.headers:
        if name == "ce_id":
            return value.decode("utf-8", "replace")
    return hashlib.sha256(b"%r" % ((record.key, record.value),)).hexdigest()[:32]


def position_of(record: Record) -> int | None:
    """The event's position in the log; None of a record that has none."""
    for name, value in record.headers:
        if name == "ce_sequence" and value.isdigit():
            return int(value[:19])
    return None


def event_of(record: Record, *, snapshot: bool) -> Event | Ignored:
    """Read a record of either topic; raises Unreadable."""
    found = dict(record.headers)
    if any(name in found for name in SAMPLES):
        return Ignored.SAMPLE
    if not all(f"ce_{name}" in found for name in ENVELOPE):
        return Ignored.FOREIGN
    try:
        attributes: dict[str, Any] = {
            name.removeprefix("ce_"): value.decode() for name, value in record.headers if name.startswith("ce_")
        }
    except UnicodeDecodeError:
        raise Unreadable("the headers are not UTF-8") from None
    if not attributes["type"].startswith("muster."):
        return Ignored.FOREIGN
    if record.value is None:
        if not snapshot:
            raise Unreadable("no data")
        return _event(attributes, Kind.DELETED, None, {})
    try:
        data = json.loads(record.value)
    except ValueError:
        raise Unreadable("the data is not JSON") from None
    return _with_data(attributes, data, snapshot=snapshot)


def event_of_feed(cloud_event: object) -> Event:
    """Read a CloudEvent of `GET /events`; raises Unreadable."""
    attributes = _object(cloud_event, "the event")
    if not all(name in attributes for name in ENVELOPE):
        raise Unreadable("the event has no envelope")
    if attributes.get("data") is None:
        raise Unreadable("the log cannot read it" if "unreadable" in attributes else "no data")
    return _with_data(attributes, attributes["data"], snapshot=False)


def _with_data(attributes: Mapping[str, Any], data: object, *, snapshot: bool) -> Event:
    body = _object(data, "the data")
    user = _user(_object(body.get("user"), "user"))
    if str(user.id) != attributes["subject"].lower():
        raise Unreadable("ce_subject is not user.id")
    parts = attributes["type"].split(".")
    kind = Kind.STATE if snapshot else KINDS.get(parts[1] if len(parts) > 1 else "", Kind.OTHER)
    if kind is Kind.DELETED and user.erased:
        kind = Kind.ERASED
    changes = {
        name: _field_change(name, change) for name, change in _object(body.get("changes") or {}, "changes").items()
    }
    event = _event(attributes, kind, user, changes)
    if event.version != user.version:
        raise Unreadable("ce_userversion is not user.version")
    return event


def _event(attributes: Mapping[str, Any], kind: Kind, user: User | None, changes: Mapping[str, FieldChange]) -> Event:
    version = user.version if user is not None and "userversion" not in attributes else _int(attributes, "userversion")
    return Event(
        kind=kind,
        user_id=_uuid(attributes, "subject"),
        version=version,
        user=user,
        changes=changes,
        position=_int(attributes, "sequence"),
        event_id=_uuid(attributes, "id"),
        type=attributes["type"],
        time=_time_or_none(attributes, "time"),
        correlation_id=attributes.get("correlationid"),
        causation_id=attributes.get("causationid"),
    )


def _user(found: Mapping[str, Any]) -> User:
    attributes = found.get("attributes")
    return User(
        id=_uuid(found, "id"),
        version=_int(found, "version"),
        email=_text_or_none(found, "email"),
        display_name=_text_or_none(found, "display_name"),
        status=_text(found, "status"),
        roles=_texts(found, "roles"),
        attributes=None if attributes is None else _object(attributes, "attributes"),
        created_at=_time(found, "created_at"),
        updated_at=_time(found, "updated_at"),
        password_changed_at=_time_or_none(found, "password_changed_at"),
        deleted_at=_time_or_none(found, "deleted_at"),
        erased=found.get("erased") is True,
    )


def _field_change(name: str, change: object) -> FieldChange:
    found = _object(change, f"changes.{name}")
    return FieldChange(old=found.get("old"), new=found.get("new"), erased=found.get("erased") is True)


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable(f"{name} is no object")
    return cast("dict[str, Any]", value)


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise Unreadable(f"{name} is no text")
    return value


def _text_or_none(found: Mapping[str, Any], name: str) -> str | None:
    return None if found.get(name) is None else _text(found, name)


def _texts(found: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = found.get(name)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in cast("list[object]", value)):
        raise Unreadable(f"{name} is no list of texts")
    return tuple(cast("list[str]", value))


def _int(found: Mapping[str, Any], name: str) -> int:
    """A whole number that is not negative, also as text."""
    value = found.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:  # noqa: PLR2004 - a bigint's
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise Unreadable(f"{name} is no number")


def _uuid(found: Mapping[str, Any], name: str) -> UUID:
    try:
        return UUID(_text(found, name))
    except ValueError:
        raise Unreadable(f"{name} is no UUID") from None


def _time(found: Mapping[str, Any], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(found, name))
    except ValueError:
        raise Unreadable(f"{name} is no time") from None
    if moment.tzinfo is None:
        raise Unreadable(f"{name} has no offset")
    return moment


def _time_or_none(found: Mapping[str, Any], name: str) -> datetime | None:
    return None if found.get(name) is None else _time(found, name)
