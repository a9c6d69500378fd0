"""Where an application is in a partition: text that it stores beside its own rows, and gives back when it starts."""

import json
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self


class Moved(Exception):
    """The stored bookmark is another than the one that was read: somebody else follows this partition now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookmark:
    """Replaces `before` (None: there is none yet) by `after`; who finds something else stored raises Moved."""

    partition: int
    before: str | None
    after: str

    def since(self, before: str | None) -> Self:
        """This one, as the one that replaces `before`."""
        return replace(self, before=before)


class Phase(StrEnum):
    SNAPSHOT = "snapshot"
    CATCHING_UP = "catching up"
    FOLLOWING = "following"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a bookmark's text says. `offset` is the next to read, `last` what tells the record before it from others.

    `number` grows with every bookmark of a partition, so that no two are the same. `start` is where the topic began
    when the bootstrap came to it: one that begins before is another. `position` is the highest that was read; a
    bootstrap is not done before it has read `until`.
    """

    number: int = 0
    phase: Phase = Phase.SNAPSHOT
    offset: int = 0
    last: str | None = None
    start: int = 0
    position: int = 0
    until: int = 0

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of a later version's too: what it has more is passed over."""
        found = json.loads(text)
        known: dict[str, Any] = {one.name: found[one.name] for one in fields(cls) if one.name in found}
        known["phase"] = Phase(found["phase"])
        return cls(**known)
