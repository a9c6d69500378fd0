"""What the topics and the feed say, as values: the contract that subscribers build on."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from muster_subscriber.bookmarks import Bookmark


class Kind(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    # deleted, and what was personal is known to nobody any more
    ERASED = "erased"
    # of a bootstrap: the user as they are now, whatever led there
    STATE = "state"
    # of a bootstrap: a user whom the application holds, and the topics do not know any more
    GONE = "gone"
    # of a type that this version does not know; the record is whole as ever
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The whole record as of `version`. Times are aware, in UTC.

    `status` and `roles` are text: new ones may come. Of an `erased` user e-mail address, display name and attributes
    are None.
    """

    id: UUID
    version: int
    email: str | None
    display_name: str | None
    status: str
    roles: tuple[str, ...]
    attributes: Mapping[str, Any] | None
    created_at: datetime
    updated_at: datetime
    password_changed_at: datetime | None
    deleted_at: datetime | None
    erased: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """JSON values. `erased`: that the field changed is known, and its values are not any more."""

    old: Any
    new: Any
    erased: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One record of a topic or of the feed. `user` is None of a tombstone, and of a user who is gone.

    `position` is that in the log of all events; `type` is the type as it is on the wire.
    """

    kind: Kind
    user_id: UUID
    version: int
    user: User | None = None
    changes: Mapping[str, FieldChange] = field(default_factory=dict[str, FieldChange])
    position: int = 0
    event_id: UUID | None = None
    type: str = ""
    time: datetime | None = None
    correlation_id: str | None = None
    causation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Event):
    """An event for the application, which stores `bookmark` in the same transaction as what it makes of it.

    `missed`: the versions between what the application held and this one that nobody could bring any more.
    """

    bookmark: Bookmark
    missed: range = range(0)

    @classmethod
    def of(cls, event: Event, *, bookmark: Bookmark, missed: range) -> Self:
        values: dict[str, Any] = {one.name: getattr(event, one.name) for one in fields(Event)}
        return cls(**values, bookmark=bookmark, missed=missed)

    @property
    def removes(self) -> bool:
        """Whether the user is no more."""
        return self.kind in {Kind.DELETED, Kind.ERASED, Kind.GONE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """A record of Muster's that cannot be read. `reason` has no personal data; `value` may have."""

    topic: str
    partition: int
    offset: int
    reason: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Changes of one partition, in order, for one transaction, which stores `bookmark` (that of the last change too).

    `poison` is there with `on_poison="deliver"` alone: records to be put aside in the same transaction.
    """

    changes: tuple[Change, ...]
    poison: tuple[Poison, ...]
    bookmark: Bookmark
