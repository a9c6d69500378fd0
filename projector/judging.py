"""A user's history and row, judged: the events fold to what they carry, and the row is what they lead to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final
from uuid import UUID

from events.histories import Entry
from events.recording import Position
from events.user import User, UserEvent, differ, evolve
from events.wire import PERSONAL, user_to_wire, value_to_wire
from projector.findings import Deviation, Finding, deviations
from projector.rows import NoRow, row_of

LOG: Final = "log"
MODEL: Final = "read model"
FIELDS: Final = tuple(field.name for field in fields(User) if field.name != "erased")

# What the tables beside that of users have of a user: their place in the order by update, which those who are deleted
# have none in, with what lists look for there, and their name.
ORDERED: Final = "users_updated.updated_at"
ORDERED_STATUS: Final = "users_updated.status"
ORDERED_ROLES: Final = "users_updated.roles"
NAMED: Final = "users_names.name"

# a row of read_model.users as JSON has it, with these
HeldRow = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What may be asked of a user's row: the events up to `reached`.

    `parked` is the first version that the projector holds back, `unpublished` the first that the relay does.
    """

    reached: Position
    parked: int | None = None
    unpublished: int | None = None

    def held_back(self, version: int) -> bool:
        return any(first is not None and version >= first for first in (self.parked, self.unpublished))


class History:
    """One user's events, taken in order of version, beside the row that the read model has of them."""

    def __init__(self, user_id: UUID, expectation: Expectation, row: HeldRow | None) -> None:
        self._user_id = user_id
        self._expectation = expectation
        self._row = row
        self._version = 0
        self._position = Position(0)
        # None before the creation, and after what cannot be folded
        self._state: User | None = None
        self._folds = True
        self._due: Entry | None = None
        self._published: Entry | None = None
        self._own: Entry | None = None
        self._last: Entry | None = None

    def add(self, entry: Entry) -> Iterator[Finding]:
        """Take the next event; gives what is wrong with the log itself."""
        if entry.version != self._version + 1:
            yield self._of_log(entry, f"version {entry.version} comes where {self._version + 1} is next")
            self._folds = False
        if entry.position <= self._position:
            yield self._of_log(entry, f"position {entry.position} comes after {self._position}")
        self._version, self._position = entry.version, entry.position
        self._last = entry
        if entry.discarded:
            self._folds = False
            return
        if entry.recorded is None:
            self._folds = False
            if not self._expectation.held_back(entry.version):
                yield self._of_log(entry, f"cannot be opened: {entry.reason}")
            return
        event = entry.recorded.event
        yield from self._judge_fold(entry, event)
        # the fold goes on from what the event carries, so that one fault is told once
        self._state, self._folds = event.user, True
        self._remember(entry)

    def judge_row(self) -> Iterator[Finding]:
        """What is wrong with the row and with the history's end, when all events were taken."""
        row, due = self._row, self._due
        if self._last is not None and self._last.erased and self._last.type_name != "UserDeleted":
            yield self._of_log(self._last, "the user's key is a tombstone, and they were never deleted")
        if row is None:
            if due is not None and not (self._expectation.unpublished is not None and self._published is None):
                yield self._of_model("there is no row", entry=due)
        elif self._version == 0:
            yield self._of_model("there is a row, and the log has no such user")
        elif due is not None and row["version"] == due.version:
            yield from self._compare(row, due)
        elif self._own is None:
            yield self._of_model(
                f"the row is at version {row['version']}, of which the log has no such event", entry=due
            )
        elif due is None or row["version"] > due.version:
            yield from self._judge_newer(row, self._own)
        elif self._may_lag(row["version"]):
            yield from self._compare(row, self._own)
        else:
            yield self._of_model(
                f"the row is at version {row['version']}, the log at {due.version}",
                entry=due,
                held_version=row["version"],
            )

    def _remember(self, entry: Entry) -> None:
        expected = self._expectation
        if self._row is not None and self._row["version"] == entry.version:
            self._own = entry
        if entry.position <= expected.reached and (expected.parked is None or entry.version < expected.parked):
            self._due = entry
            if expected.unpublished is not None and entry.version < expected.unpublished:
                self._published = entry

    def _judge_fold(self, entry: Entry, event: UserEvent) -> Iterator[Finding]:
        user = event.user
        if user.id != entry.user_id or user.version != entry.version:
            yield self._of_log(entry, "it carries the record of another user or version")
            return
        if not self._folds:
            return
        wrong = [
            Deviation(name=name, log=value_to_wire(held), found=value_to_wire(change.old))
            for name, change in event.changes.items()
            if not change.erased and differ(held := getattr(self._state, name, None), change.old)
        ]
        if wrong:
            yield self._of_log(entry, "what it says was there before its changes was not", *wrong)
        try:
            folded = evolve(self._state, event)
        except (ValueError, TypeError) as error:
            yield self._of_log(entry, f"its changes cannot be folded ({type(error).__name__})")
            return
        wrong = [
            Deviation(name=name, log=value_to_wire(getattr(folded, name)), found=value_to_wire(getattr(user, name)))
            for name in FIELDS
            # what was erased can be compared with nothing
            if not (user.erased and name in PERSONAL) and differ(getattr(folded, name), getattr(user, name))
        ]
        if wrong:
            yield self._of_log(entry, "the record it carries is not what its changes lead to", *wrong)

    def _judge_newer(self, row: HeldRow, own: Entry) -> Iterator[Finding]:
        """A table that a rebuild has just put there may be newer than what the partition has reached, never wrong."""
        parked = self._expectation.parked
        if parked is not None and row["version"] >= parked:
            yield self._of_model(
                f"the row is at version {row['version']}, and the user is held back from {parked} on", entry=own
            )
        else:
            yield from self._compare(row, own)

    def _may_lag(self, version: int) -> bool:
        """Whether the row may be without what is not in the topics: the projector may have it from the log or not."""
        published = self._published.version if self._published is not None else 0
        return self._expectation.unpublished is not None and version >= published and self._own is not None

    def _compare(self, row: HeldRow, entry: Entry) -> Iterator[Finding]:
        if entry.recorded is None:
            return
        try:
            expected = row_of(user_to_wire(entry.recorded.event.user), entry.position)
        except NoRow as error:
            yield self._of_model(str(error), entry=entry)
            return
        expected |= {
            ORDERED: expected["updated_at"] if expected["deleted_at"] is None else None,
            ORDERED_STATUS: expected.get("status"),
            ORDERED_ROLES: expected.get("roles"),
            NAMED: expected.get("display_name"),
        }
        found = tuple(deviations(expected, row))
        if found:
            yield self._of_model("the row is another", *found, entry=entry)

    def _of_log(self, entry: Entry, problem: str, *found: Deviation) -> Finding:
        return Finding(place=LOG, problem=problem, user_id=self._user_id, deviations=found, entry=entry)

    def _of_model(
        self, problem: str, *found: Deviation, entry: Entry | None = None, held_version: int | None = None
    ) -> Finding:
        return Finding(
            place=MODEL,
            problem=problem,
            user_id=self._user_id,
            deviations=found,
            entry=entry,
            held_version=held_version,
        )
