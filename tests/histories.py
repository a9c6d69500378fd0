"""Users with a history in the log, appended as the command API does it, without one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest

from events.keyring import Kek, Keyring
from events.recording import row_of
from events.user import (
    EventId,
    Status,
    User,
    UserCreated,
    UserDeleted,
    UserEvent,
    UserId,
    UserUpdated,
    changes_between,
)
from events.wire import user_to_wire
from projector.rows import row_of as row_of_model
from runtime.ids import new_id
from tests.people import METADATA, NOON
from tests.tokens import KEK

Owner = psycopg.Connection[dict[str, Any]]


@dataclass(slots=True)
class History:
    """`users` holds each user as the log has them now, by the number they were created with."""

    owner: Owner
    users: dict[int, User]
    keyring: Keyring
    wrapped: dict[UUID, bytes]

    def create(self, numbers: Iterable[int], **fields: object) -> None:
        events: list[UserEvent] = []
        for number in numbers:
            at = NOON + timedelta(seconds=number)
            values: dict[str, Any] = {
                "email": f"user{number:05}@example.com",
                "display_name": f"User {number}",
                "status": Status.ACTIVE,
                "roles": ("user",),
                "attributes": {"team": f"team-{number % 7}"},
                "password_changed_at": None,
                **fields,
            }
            user = User(
                id=UserId(UUID(int=number + 1)), version=1, created_at=at, updated_at=at, deleted_at=None, **values
            )
            self.users[number] = user
            events.append(UserCreated(id=EventId(new_id()), user=user, changes=changes_between(None, user)))
        self._append(events)

    def change(self, numbers: Iterable[int], **fields: Any) -> None:  # noqa: ANN401 - fields of any type
        events: list[UserEvent] = []
        for number in numbers:
            old = self.users[number]
            new = replace(old, version=old.version + 1, updated_at=old.updated_at + timedelta(hours=1), **fields)
            self.users[number] = new
            kind = UserDeleted if new.deleted_at is not None else UserUpdated
            events.append(kind(id=EventId(new_id()), user=new, changes=changes_between(old, new)))
        self._append(events)

    def delete(self, numbers: Iterable[int]) -> None:
        self.change(numbers, deleted_at=NOON + timedelta(days=1))

    def damage(self, number: int, version: int) -> None:
        """Alter what is sealed of an event, so that nobody can open it."""
        done = self.owner.execute(
            "UPDATE log.events SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1)"
            " WHERE user_id = %s AND version = %s",
            (self.users[number].id, version),
        )
        assert done.rowcount == 1

    def mend(self, number: int, version: int) -> None:
        self.damage(number, version)

    def project(self) -> None:
        """Fill the live table with all that is in the log, as a projector without trouble would."""
        head = self.head
        rows = [row_of_model(user_to_wire(user), self.position_of(user)) for user in self.users.values()]
        self.owner.execute("SELECT read_model.put('read_model.users', %s, NULL)", (orjson.dumps(rows).decode(),))
        self.owner.execute(
            "INSERT INTO read_model.progress (partition, next_offset, position)"
            " SELECT partition, %(head)s, %(head)s FROM generate_series(0, 2) AS partition"
            " ON CONFLICT (partition) DO UPDATE SET position = excluded.position",
            {"head": head},
        )

    @property
    def head(self) -> int:
        return self.owner.execute("SELECT position FROM log.head").fetchall()[0]["position"]

    def position_of(self, user: User) -> int:
        return self.owner.execute(
            "SELECT position FROM log.events WHERE user_id = %s AND version = %s", (user.id, user.version)
        ).fetchall()[0]["position"]

    def _append(self, events: list[UserEvent]) -> None:
        commands: list[dict[str, Any]] = []
        for event in events:
            row = row_of(event, METADATA, self.keyring, self.wrapped.get(event.user.id))
            if "wrapped" in row:
                self.wrapped[event.user.id] = bytes.fromhex(row["wrapped"][2:])
            commands.append(
                {
                    "user_id": str(event.user.id),
                    "expected": event.user.version - 1,
                    "at": row["data"]["record"]["updated_at"],
                    **row,
                }
            )
        verdicts = self.owner.execute(
            "SELECT verdict FROM log.append(%s::json)", (orjson.dumps(commands).decode(),)
        ).fetchall()
        assert {row["verdict"] for row in verdicts} <= {"appended"}


@pytest.fixture
def history(owner: Owner) -> History:
    return History(owner, {}, Keyring(Kek(KEK)), {})


def rows_of(owner: Owner) -> Mapping[UUID, dict[str, Any]]:
    return {row["id"]: row for row in owner.execute("SELECT * FROM read_model.users").fetchall()}
