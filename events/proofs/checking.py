"""Whether a log is what was signed: its events are taken in order, wherever they come from."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from events.proofs.leaves import leaf_of
from events.proofs.merkle import Frontier, leaf_hash

TEXTS: Final = ("recorded_at", "user_id", "type", "event_id", "sealed")
NUMBERS: Final = ("position", "version", "schema")
OBJECTS: Final = ("data", "metadata")
FIELDS: Final = frozenset({*TEXTS, *NUMBERS, *OBJECTS})

LARGEST: Final = 2**63 - 1

# the leaf hash that the tree holds of a position; None: the tree does not go that far
HashAt = Callable[[int], bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """What is wrong, at which position: the first one that it can be, where no more is known."""

    position: int
    what: str


class LogCheck:
    """Checks events in order of position, and stops at the first that is wrong.

    `roots` holds the root at each size that was signed. `start` is the tree before the first event; positions go on
    from its size. What a user's versions are is remembered, so memory grows with the number of users.
    """

    def __init__(self, roots: Mapping[int, bytes], *, start: Frontier | None = None, hash_at: HashAt) -> None:
        self._roots = roots
        self._frontier = start if start is not None else Frontier()
        self._begin = self._frontier.size
        # leaves that the frontier has not yet: it takes many at once faster
        self._waiting: list[bytes] = []
        self._hash_at = hash_at
        self._versions: dict[str, int] = {}
        self._recorded_at = ""
        # up to here, what is held is what was signed
        self._proved = self._begin
        self._suspect: int | None = None

    @property
    def size(self) -> int:
        return self._frontier.size + len(self._waiting)

    @property
    def proved(self) -> int:
        """Up to this position the events are those that were signed."""
        return self._proved

    def take(self, documents: Iterable[object]) -> Wrong | None:
        """The next events, as stored documents (events/proofs/leaves.py); what is wrong first, if anything."""
        for document in documents:
            position = self.size + 1
            if (what := self._fault(document, position)) is not None:
                return self._suspected() or Wrong(position=position, what=what)
            found = leaf_hash(leaf_of(cast("Mapping[str, Any]", document)))
            self._waiting.append(found)
            kept = self._hash_at(position)
            if kept is not None and kept != found and self._suspect is None:
                self._suspect = position
            if (root := self._roots.get(position)) is not None and (wrong := self._compare(position, root)) is not None:
                return wrong
        self._grow()
        return None

    def end(self) -> Wrong | None:
        """What is wrong with where the log ends, if anything."""
        if (wrong := self._suspected()) is not None:
            return wrong
        last = max(self._roots, default=0)
        if last > self.size:
            return Wrong(
                position=self.size + 1,
                what=f"the log ends before this position, and a checkpoint of {last} events was signed",
            )
        return None

    def _suspected(self) -> Wrong | None:
        if self._suspect is None:
            return None
        return Wrong(position=self._suspect, what="the event is not the one that the tree holds a hash of")

    def _compare(self, size: int, root: bytes) -> Wrong | None:
        suspect, begin = self._suspect, self._proved + 1
        self._grow()
        if self._frontier.root() == root:
            self._proved = size
            if suspect is not None:
                return Wrong(
                    position=suspect,
                    what="the event is as it was signed, but the hash that the tree holds of it was altered",
                )
            return None
        if suspect is not None:
            return Wrong(position=suspect, what="the event is not the one that was signed")
        what = f"of the events {begin} to {size}, not all are those that were signed"
        return Wrong(position=begin, what=what)

    def _grow(self) -> None:
        self._frontier, _ = self._frontier.grow(self._waiting)
        self._waiting = []

    def _fault(self, document: object, position: int) -> str | None:
        """What is wrong with an event in itself, and behind those before it."""
        if not isinstance(document, dict) or not _is_stored(cast("Mapping[str, Any]", document)):
            return "it is not an event as the log stores them"
        event = cast("Mapping[str, Any]", document)
        found = event["position"]
        if found != position:
            return "there is no event at this position" if found > position else f"position {found} comes again"
        if event["recorded_at"] < self._recorded_at:
            return "it was recorded before the one in front of it"
        self._recorded_at = event["recorded_at"]
        known, version = self._versions.get(event["user_id"]), event["version"]
        # of a stretch of the log, it is not known what came before
        expected = known + 1 if known is not None else version if self._begin else 1
        if version != expected:
            return f"it is version {version} of its user, whose next is {expected}"
        self._versions[event["user_id"]] = version
        return None


def _is_stored(event: Mapping[str, Any]) -> bool:
    return (
        frozenset(event) == FIELDS
        and all(isinstance(event[name], str) for name in TEXTS)
        and all(type(event[name]) is int and 0 <= event[name] <= LARGEST for name in NUMBERS)
        and all(isinstance(event[name], dict) for name in OBJECTS)
    )
