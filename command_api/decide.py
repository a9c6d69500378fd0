"""The rules: what a command does to a user, as pure functions. Ids and time arrive in the command."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, assert_never, cast

import orjson

from events.user import (
    EventId,
    JsonObject,
    Status,
    User,
    UserCreated,
    UserDeleted,
    UserEvent,
    UserId,
    UserUpdated,
    changes_between,
    changes_by,
)

MAX_ATTRIBUTES: Final = 8 * 1024


class UserUnknown(Exception):
    """There never was such a user."""


class UserGone(Exception):
    """The user is deleted."""


class UserExists(Exception):
    """The id is another user's already."""


class VersionMismatch(Exception):
    """The user is not at a version that the caller named."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the user is at version {version}")
        self.version = version


class AttributesTooLarge(Exception):
    """The attributes would have more than 8 KiB as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateUser:
    event_id: EventId
    user_id: UserId
    at: datetime
    email: str
    display_name: str | None
    status: Status
    roles: tuple[str, ...]
    attributes: JsonObject
    with_password: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeUser:
    """`new` holds the fields to set; `attributes_patch` is merged into the attributes (RFC 7396).

    `versions` are those that the caller accepts (If-Match); None accepts any.
    """

    event_id: EventId
    at: datetime
    new: Mapping[str, Any]
    attributes_patch: JsonObject | None
    with_password: bool
    versions: frozenset[int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteUser:
    event_id: EventId
    at: datetime
    versions: frozenset[int] | None


Command = CreateUser | ChangeUser | DeleteUser


def decide(state: User | None, command: Command) -> UserEvent | None:
    """The event that the command leads to, or None when it would change nothing.

    Raises UserUnknown, UserGone, UserExists, VersionMismatch, AttributesTooLarge.
    """
    match command:
        case CreateUser():
            if state is not None:
                raise UserExists
            return _create(command)
        case ChangeUser():
            return _change(_living(state, command.versions), command)
        case DeleteUser():
            before = _living(state, command.versions)
            at = max(command.at, before.updated_at)
            after = replace(before, version=before.version + 1, updated_at=at, deleted_at=at)
            return UserDeleted(id=command.event_id, user=after, changes=changes_between(before, after))
        case _:
            assert_never(command)


def _create(command: CreateUser) -> UserCreated:
    _check_size(command.attributes)
    user = User(
        id=command.user_id,
        version=1,
        email=command.email,
        display_name=command.display_name,
        status=command.status,
        roles=command.roles,
        attributes=command.attributes,
        created_at=command.at,
        updated_at=command.at,
        password_changed_at=command.at if command.with_password else None,
        deleted_at=None,
    )
    return UserCreated(id=command.event_id, user=user, changes=changes_between(None, user))


def _change(before: User, command: ChangeUser) -> UserUpdated | None:
    # two processes' clocks may differ: a user's times never go back all the same
    at = max(command.at, before.updated_at)
    new = dict(command.new)
    if command.attributes_patch is not None:
        new["attributes"] = merge_patch(before.attributes, command.attributes_patch)
    if command.with_password:
        if before.password_changed_at is not None:
            # a new password is a change, even by a clock that has not moved on
            at = max(at, before.password_changed_at + timedelta(microseconds=1))
        new["password_changed_at"] = at
    changes = changes_by(before, new)
    if not changes:
        return None
    if "attributes" in changes:
        _check_size(new["attributes"])
    return UserUpdated(
        id=command.event_id,
        user=replace(before, **new, version=before.version + 1, updated_at=at),
        changes=changes,
    )


def _living(state: User | None, versions: frozenset[int] | None) -> User:
    if state is None:
        raise UserUnknown
    if state.deleted_at is not None:
        raise UserGone
    if versions is not None and state.version not in versions:
        raise VersionMismatch(state.version)
    return state


def _check_size(attributes: JsonObject) -> None:
    if len(orjson.dumps(attributes)) > MAX_ATTRIBUTES:
        raise AttributesTooLarge


def merge_patch(target: object, patch: object) -> Any:  # noqa: ANN401 - a JSON value
    """RFC 7396, section 2."""
    if not isinstance(patch, Mapping):
        return patch
    merged: dict[str, Any] = dict(cast("JsonObject", target)) if isinstance(target, Mapping) else {}
    for name, value in cast("JsonObject", patch).items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged
