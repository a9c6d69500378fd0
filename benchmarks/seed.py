"""Users without requests: straight into the read model, as the projector would put them."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import psycopg

from events.recording import Position
from events.user import Status, User, UserId
from events.wire import user_to_wire
from projector.rows import row_of
from runtime.ids import new_id

BATCH = 5000


def user_numbered(n: int, user_id: UUID, at: datetime) -> User:
    return User(
        id=UserId(user_id),
        version=1,
        email=f"load-{n:012d}@example.com",
        display_name=f"Load {n:012d}",
        status=Status.DISABLED if n % 10 == 9 else Status.ACTIVE,
        roles=("user",) if n % 100 else ("admin", "user"),
        attributes={"team": f"team-{n % 50}", "floor": n % 7},
        created_at=at,
        updated_at=at,
        password_changed_at=None,
        deleted_at=None,
    )


def seed_read_model(database_url: str, users: int) -> list[str]:
    """Give the read model `users` users, as its owner; answers their ids in a random order."""
    ids: list[str] = []
    with psycopg.connect(database_url, autocommit=True) as connection:
        for rows in _batches(users):
            ids += [str(row["id"]) for row in rows]
            connection.execute(
                "SELECT read_model.put('read_model.users', %s::json, NULL)", (orjson.dumps(rows).decode(),)
            )
        connection.execute("VACUUM ANALYZE read_model.users")
    random.Random(1).shuffle(ids)
    return ids


def _batches(users: int) -> Iterator[list[dict[str, object]]]:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for start in range(0, users, BATCH):
        yield [
            row_of(user_to_wire(user_numbered(n, new_id(), began + timedelta(seconds=n))), Position(n + 1))
            for n in range(start, min(start + BATCH, users))
        ]
