"""What a verification finds, in words that say nothing personal."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

from events.histories import Entry
from events.wire import PERSONAL

SHOWN_NEVER: Final = PERSONAL | {"email_canonical", "users_names.name"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A column or field on which the log and what was compared with it disagree."""

    name: str
    log: Any
    found: Any

    @property
    def personal(self) -> bool:
        return self.name in SHOWN_NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A difference. `place` is where it was found, `entry` the event that explains it, if any does.

    `held_version` is that of a row which lacks later events.
    """

    place: str
    problem: str
    user_id: UUID | None = None
    deviations: tuple[Deviation, ...] = ()
    entry: Entry | None = None
    held_version: int | None = None


def deviations(log: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Deviation]:
    """Of JSON values, in the order of `found`; what the log does not mention is null."""
    for name, value in found.items():
        if not same(log.get(name), value):
            yield Deviation(name=name, log=log.get(name), found=value)


def same(one: object, other: object) -> bool:
    """Whether two JSON values are equal as Postgres compares jsonb: numbers by value, true is none."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("dict[str, object]", one), cast("dict[str, object]", other)
        return left.keys() == right.keys() and all(same(value, right[name]) for name, value in left.items())
    if isinstance(one, list) and isinstance(other, list):
        first, second = cast("list[object]", one), cast("list[object]", other)
        return len(first) == len(second) and all(map(same, first, second))
    return one == other
