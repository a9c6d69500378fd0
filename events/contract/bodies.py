"""The JSON of the topics' records, as types: what the JSON Schemas in events/schemas are made of.

These are the newest versions. A version that was published does not change; docs/subscribe.md says how a type gets its
next one.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NotRequired
from uuid import UUID

from pydantic import Field

# pydantic takes typing's own from Python 3.12 on
from typing_extensions import TypedDict

from events.envelope import SNAPSHOT, SNAPSHOT_VERSION
from events.record import EXAMPLE
from events.user import Status
from events.versions import newest

Erased = Annotated[Literal[True], Field(description="there when the user was erased: what was personal is null")]
ErasedChange = Annotated[
    Literal[True], Field(description="there when the user was erased: that it changed is known, and no value")
]


class User(TypedDict):
    """The whole record, after the change."""

    id: Annotated[UUID, Field(description="for ever the same; also the record's key and ce_subject")]
    version: Annotated[int, Field(ge=1, description="1, 2, 3 ... without a gap; also ce_userversion")]
    email: Annotated[str | None, Field(description="as it was typed; null: the user was erased")]
    display_name: str | None
    status: Status
    roles: Annotated[list[str], Field(description="sorted and distinct")]
    attributes: Annotated[dict[str, Any] | None, Field(description="any JSON object; null: the user was erased")]
    created_at: datetime
    updated_at: datetime
    password_changed_at: Annotated[datetime | None, Field(description="null: the user has no password")]
    deleted_at: Annotated[datetime | None, Field(description="null: the user is not deleted")]
    erased: NotRequired[Erased]


class TextChange(TypedDict):
    old: str | None
    new: str | None
    erased: NotRequired[ErasedChange]


class StatusChange(TypedDict):
    old: Status | None
    new: Status


class RolesChange(TypedDict):
    old: list[str] | None
    new: list[str]


class AttributesChange(TypedDict):
    old: dict[str, Any] | None
    new: dict[str, Any] | None
    erased: NotRequired[ErasedChange]


class TimeChange(TypedDict):
    old: datetime | None
    new: datetime | None


class Changes(TypedDict):
    """What changed, by field, with the values before and after; before the creation all was null."""

    email: NotRequired[TextChange]
    display_name: NotRequired[TextChange]
    status: NotRequired[StatusChange]
    roles: NotRequired[RolesChange]
    attributes: NotRequired[AttributesChange]
    created_at: NotRequired[TimeChange]
    password_changed_at: NotRequired[TimeChange]
    deleted_at: NotRequired[TimeChange]


class UserCreated(TypedDict):
    """A user was created: the first event of every user, with version 1."""

    user: User
    changes: Changes


class UserUpdated(TypedDict):
    """A user was changed. A new password shows as `password_changed_at` alone."""

    user: User
    changes: Changes


class UserDeleted(TypedDict):
    """A user was deleted: the last event of theirs. Nobody of that id comes back."""

    user: User
    changes: Changes


class UserSnapshot(TypedDict):
    """A user as they are now. One who is deleted has a tombstone instead: a record whose value is null."""

    user: User


BODIES: Final[Mapping[str, Any]] = {
    "UserCreated": UserCreated,
    "UserUpdated": UserUpdated,
    "UserDeleted": UserDeleted,
    SNAPSHOT: UserSnapshot,
}


def version_of(name: str) -> int:
    """The newest version of a body."""
    return SNAPSHOT_VERSION if name == SNAPSHOT else newest(name)


_NOBODY: Final[Mapping[str, Any]] = {**EXAMPLE, "deleted_at": None}
_CREATED: Final[Mapping[str, Any]] = {
    **_NOBODY,
    "version": 1,
    "attributes": {"team": "looms"},
    "updated_at": EXAMPLE["created_at"],
}
_DELETED_AT: Final = "2026-04-01T08:15:00.000000Z"

EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "UserCreated": {
        "user": _CREATED,
        "changes": {
            name: {"old": None, "new": _CREATED[name]}
            for name in ("email", "display_name", "status", "roles", "attributes", "created_at")
        },
    },
    "UserUpdated": {
        "user": _NOBODY,
        "changes": {"attributes": {"old": {"team": "looms"}, "new": {"team": "engines"}}},
    },
    "UserDeleted": {
        "user": {**_NOBODY, "version": 3, "updated_at": _DELETED_AT, "deleted_at": _DELETED_AT},
        "changes": {"deleted_at": {"old": None, "new": _DELETED_AT}},
    },
    SNAPSHOT: {"user": _NOBODY},
}
