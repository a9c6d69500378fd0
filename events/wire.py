"""Names and JSON of events outside Python: what is stored and published must outlive this code."""

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from uuid import UUID

import orjson

from events.user import (
    Change,
    EventId,
    Status,
    User,
    UserCreated,
    UserDeleted,
    UserEvent,
    UserUpdated,
)

TYPES: Final[Mapping[str, type[UserEvent]]] = {
    "UserCreated": UserCreated,
    "UserUpdated": UserUpdated,
    "UserDeleted": UserDeleted,
}
NAMES: Final = {kind: name for name, kind in TYPES.items()}

PERSONAL: Final = frozenset({"email", "display_name", "attributes"})
# of a change whose values are not known any more
ERASED_CHANGE: Final[dict[str, Any]] = {"old": None, "new": None, "erased": True}
# what stands where an erased user's personal values were
ERASED_VALUES: Final[dict[str, Any]] = {"email": "", "display_name": None, "attributes": {}, "erased": True}
# characters of a time before its offset from UTC
UNZONED: Final = len("2026-01-01T00:00:00.000000")
_AS_IT_IS: Final = frozenset({str, type(None), dict, int, bool})
TIMES: Final = frozenset({"created_at", "updated_at", "password_changed_at", "deleted_at"})


def time_to_wire(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, always of one width, so that text order is time order."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    if moment.microsecond:
        # several times as fast; without microseconds it would write none
        return orjson.dumps(moment, option=orjson.OPT_UTC_Z)[1:-1].decode()
    return moment.isoformat(timespec="microseconds")[:UNZONED] + "Z"


def value_to_wire(value: Any) -> Any:  # noqa: ANN401 - a field's value
    if type(value) in _AS_IT_IS:  # pyright: ignore[reportUnknownArgumentType]
        return value
    match value:
        case datetime():
            return time_to_wire(value)
        case tuple():
            return list(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case Status():
            return value.value
        case UUID():
            return str(value)
        case _:
            return value


def value_from_wire(name: str, value: Any) -> Any:  # noqa: ANN401 - a field's value
    if value is None:
        return None
    if name in TIMES:
        return datetime.fromisoformat(value)
    if name == "roles":
        return tuple(value)
    if name == "status":
        return Status(value)
    return value


def user_to_wire(user: User) -> dict[str, Any]:
    """The record as consumers and callers see it."""
    record = {
        "id": str(user.id),
        "version": user.version,
        "email": user.email,
        "display_name": user.display_name,
        "status": user.status.value,
        "roles": list(user.roles),
        "attributes": user.attributes,
        "created_at": time_to_wire(user.created_at),
        "updated_at": time_to_wire(user.updated_at),
        "password_changed_at": value_to_wire(user.password_changed_at),
        "deleted_at": value_to_wire(user.deleted_at),
    }
    return erased_record(record) if user.erased else record


def erased_event(event: UserEvent) -> UserEvent:
    """As an event is read once the user's key is a tombstone."""
    changes = {
        name: Change(old=None, new=None, erased=True) if name in PERSONAL else change
        for name, change in event.changes.items()
    }
    return replace(event, user=replace(event.user, **ERASED_VALUES), changes=changes)


def erased_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of a record: everything but the personal values."""
    return {**record, **dict.fromkeys(sorted(PERSONAL)), "erased": True}


def user_from_wire(record: Mapping[str, Any]) -> User:
    values: dict[str, Any] = {
        **record,
        "id": UUID(record["id"]),
        "roles": tuple(record["roles"]),
        "status": Status(record["status"]),
    }
    for name in TIMES:
        if (moment := values.get(name)) is not None:
            values[name] = datetime.fromisoformat(moment)
    return User(**values)


def changes_to_wire(changes: Mapping[str, Change]) -> dict[str, dict[str, Any]]:
    return {
        name: ERASED_CHANGE if change.erased else {"old": value_to_wire(change.old), "new": value_to_wire(change.new)}
        for name, change in changes.items()
    }


def changes_from_wire(changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Change]:
    return {
        name: Change(
            old=value_from_wire(name, change["old"]),
            new=value_from_wire(name, change["new"]),
            erased=change.get("erased", False),
        )
        for name, change in changes.items()
    }


@cache
def own_fields(kind: type[UserEvent]) -> tuple[str, ...]:
    """What events of this type have beside the record and the changes; never personal."""
    return tuple(field.name for field in fields(kind) if field.name not in {"id", "user", "changes"})


def own_to_wire(event: UserEvent) -> dict[str, Any]:
    return {name: value_to_wire(getattr(event, name)) for name in own_fields(type(event))}


def event_from_wire(*, event_id: UUID, type_name: str, document: Mapping[str, Any]) -> UserEvent:
    """The event of a document as events.versions has it. Raises KeyError for a type that is not known."""
    kind = TYPES[type_name]
    own = {name: value_from_wire(name, document[name]) for name in own_fields(kind) if name in document}
    return kind(
        id=EventId(event_id),
        user=user_from_wire(document["user"]),
        changes=changes_from_wire(document["changes"]),
        **own,
    )
