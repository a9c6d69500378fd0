"""A user's record, the events that changed it, and the fold of one into the other. No IO happens here."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NewType, assert_never
from uuid import UUID

import orjson

EventId = NewType("EventId", UUID)
UserId = NewType("UserId", UUID)
JsonObject = Mapping[str, Any]


class Status(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The whole record as of `version`; version 1 is the creation. `password_changed_at` is all it says of a password.

    Times are aware, in UTC. `roles` are sorted and distinct; `attributes` is a JSON object. Of an `erased` user e-mail
    address, display name and attributes are empty, whatever they were.
    """

    id: UserId
    version: int
    email: str
    display_name: str | None
    status: Status
    roles: tuple[str, ...]
    attributes: JsonObject
    created_at: datetime
    updated_at: datetime
    password_changed_at: datetime | None
    deleted_at: datetime | None
    erased: bool = False


# what a change can be about; id, version and updated_at follow from the event itself, erasure from the key
CHANGEABLE: Final = tuple(f.name for f in fields(User) if f.name not in {"id", "version", "updated_at", "erased"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`erased`: that the field changed is known, and its values are not any more."""

    old: Any
    new: Any
    erased: bool = False


Changes = Mapping[str, Change]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCreated:
    id: EventId
    user: User
    changes: Changes


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUpdated:
    id: EventId
    user: User
    changes: Changes


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDeleted:
    id: EventId
    user: User
    changes: Changes


UserEvent = UserCreated | UserUpdated | UserDeleted


def differ(old: object, new: object) -> bool:
    """Whether two values of a field differ as JSON does: in Python True equals 1 and 1 equals 1.0."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return orjson.dumps(old, option=orjson.OPT_SORT_KEYS) != orjson.dumps(new, option=orjson.OPT_SORT_KEYS)
    return old != new


def changes_between(before: User | None, after: User) -> Changes:
    """The names of the fields that differ, with their old and new values; a field that was never set was None."""
    return changes_by(before, {name: getattr(after, name) for name in CHANGEABLE})


def changes_by(before: User | None, new: Mapping[str, Any]) -> Changes:
    """What setting these fields changes, as `changes_between`."""
    found: dict[str, Change] = {}
    for name in CHANGEABLE:
        if name in new:
            old = None if before is None else getattr(before, name)
            if differ(old, new[name]):
                found[name] = Change(old=old, new=new[name])
    return found


def evolve(state: User | None, event: UserEvent) -> User:
    """Fold an event's changes into the state before it.

    Uses the changes, not the record that the event carries: that the two agree is what `muster verify` checks. What was
    erased stays as it is there.
    Raises ValueError when the event cannot follow the state.
    """
    new = {name: change.new for name, change in event.changes.items() if not change.erased}
    match event:
        case UserCreated():
            if state is not None:
                raise ValueError(f"user {state.id} is created already")
            blank = dict.fromkeys(CHANGEABLE)
            return User(**blank | new, id=event.user.id, version=1, updated_at=event.user.updated_at)  # pyright: ignore[reportArgumentType]
        case UserUpdated() | UserDeleted():
            if state is None or state.version + 1 != event.user.version:
                raise ValueError(f"version {event.user.version} of user {event.user.id} follows no known one")
            return replace(state, **new, version=event.user.version, updated_at=event.user.updated_at)
        case _:
            assert_never(event)
