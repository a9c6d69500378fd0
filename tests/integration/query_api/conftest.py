from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import orjson
import psycopg
import pytest

from events.user import User, UserId
from events.wire import user_to_wire
from projector.rows import row_of
from tests.databases import MakeSettings
from tests.people import ADA, NOON

Owner = psycopg.Connection[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ReadModel:
    """The read model as a projector would leave it."""

    owner: Owner
    topic: str

    def hold(self, users: Iterable[User], *, position: int = 7) -> None:
        rows = [row_of(user_to_wire(user), position) for user in users]
        self.owner.execute("SELECT read_model.put('read_model.users', %s, NULL)", (orjson.dumps(rows).decode(),))

    def stand(self, partition: int, *, offset: int, position: int) -> None:
        """All of this partition before `offset` is applied: the events up to `position`."""
        self.owner.execute(
            "INSERT INTO read_model.progress (partition, next_offset, position) VALUES (%s, %s, %s)"
            " ON CONFLICT (partition) DO UPDATE SET next_offset = excluded.next_offset, position = excluded.position",
            (partition, offset, position),
        )

    def publish(self, partition: int, *, offset: int, position: int) -> None:
        """The relay has published every event up to `position` that belongs here, all before `offset`."""
        self.owner.execute(
            "INSERT INTO log.publication (topic, partition, position, next_offset, last_position)"
            " VALUES (%(topic)s, %(partition)s, %(position)s, %(offset)s, %(position)s)"
            " ON CONFLICT (topic, partition) DO UPDATE"
            " SET position = excluded.position, next_offset = excluded.next_offset",
            {"topic": self.topic, "partition": partition, "position": position, "offset": offset},
        )


@pytest.fixture
def model(owner: Owner, make_settings: MakeSettings) -> ReadModel:
    return ReadModel(owner, make_settings("muster_query").events_topic)


MakeUser = Callable[..., User]


@pytest.fixture
def make_user() -> MakeUser:
    """Users numbered 1, 2, ...: ids and times rise with the number, unless said otherwise."""

    def make(number: int, **fields: object) -> User:
        values: dict[str, Any] = {
            "id": UserId(UUID(int=number)),
            "version": 1,
            "email": f"user{number:03}@example.com",
            "display_name": f"User {number}",
            "status": ADA.status,
            "roles": ("user",),
            "attributes": {},
            "created_at": NOON + timedelta(seconds=number),
            "updated_at": NOON + timedelta(seconds=number),
            "password_changed_at": None,
            "deleted_at": None,
        }
        return User(**cast("Any", values | fields))

    return make
