"""Users without requests: straight into the read model, as the projector would put them, and topics without records."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import psycopg

from events.histories import entries_in, key_ranges
from events.keyring import open_keyring
from events.reader import head_position
from events.recording import Position
from events.user import Status, User, UserId
from events.wire import user_to_wire
from projector.rows import Row, row_of
from projector.verifying import one_moment
from runtime.database import Session
from runtime.ids import new_id
from runtime.settings import Settings

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
        connection.execute("VACUUM ANALYZE read_model.users, read_model.users_updated, read_model.users_names")
    random.Random(1).shuffle(ids)
    return ids


def _batches(users: int) -> Iterator[list[dict[str, object]]]:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for start in range(0, users, BATCH):
        yield [
            row_of(user_to_wire(user_numbered(n, new_id(), began + timedelta(seconds=n))), Position(n + 1))
            for n in range(start, min(start + BATCH, users))
        ]


async def project_log(settings: Settings) -> None:
    """Fill an empty read model from the log, each user's newest event at once, as the projector."""
    keyring = open_keyring(settings)
    session = Session(settings.database_url.get_secret_value(), application="benchmark", timeout=600)
    try:
        head = await session.use(head_position)
        rows: dict[str, Row] = {}
        async with one_moment(settings) as reading:
            async for keys in key_ranges(reading, BATCH):
                async with entries_in(reading, keyring, keys) as entries:
                    async for entry in entries:
                        assert entry.recorded is not None
                        rows[str(entry.user_id)] = row_of(user_to_wire(entry.recorded.event.user), entry.position)
                await session.fetch(
                    "SELECT read_model.put('read_model.users', %s::json, NULL)",
                    (orjson.dumps(list(rows.values())).decode(),),
                )
                rows.clear()
        await session.fetch(
            "INSERT INTO read_model.progress (partition, next_offset, position)"
            " SELECT partition, 0, %s FROM generate_series(0, %s) AS partition",
            (head, settings.topic_partitions - 1),
        )
    finally:
        await session.close()


def begin_topics(database_url: str, settings: Settings) -> None:
    """Have the relay, and so the topics, begin after what the log has now; as the owner, who also analyses."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO log.publication (topic, partition, position, next_offset, last_position)"
            " SELECT topic, partition, h.position, 0, 0"
            " FROM log.head h, unnest(%s::text[]) AS topic, generate_series(0, %s) AS partition",
            ([settings.events_topic, settings.snapshot_topic], settings.topic_partitions - 1),
        )
        connection.execute("VACUUM ANALYZE")
