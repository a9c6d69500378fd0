import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from muster_subscriber import Subscription, subscribe
from muster_subscriber.sqlite import SqliteUsers
from runtime.settings import Settings
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]
Table = dict[str, tuple[int, bool]]
Follow = Callable[..., Subscription]


MakeTable = Callable[[], SqliteUsers]


@pytest.fixture
def make_table(tmp_path: Path) -> Iterator[MakeTable]:
    made: list[SqliteUsers] = []

    def make() -> SqliteUsers:
        made.append(SqliteUsers(tmp_path / f"users-{len(made)}.sqlite"))
        return made[-1]

    yield make
    for table in made:
        table.close()


@pytest.fixture
def table(make_table: MakeTable) -> SqliteUsers:
    return make_table()


@pytest.fixture
async def follow(make_table: MakeTable) -> AsyncIterator[Follow]:  # noqa: ARG001 - tables are closed once nobody follows
    """Start following the topics into a table, in the background, until the test ends: follow(settings, table)."""
    running: list[asyncio.Task[None]] = []

    def start(settings: Settings, table: SqliteUsers, *, topic: str | None = None, **options: Any) -> Subscription:  # noqa: ANN401 - of subscribe
        subscription = subscription_to(settings, table, topic=topic, **options)
        running.append(asyncio.create_task(_apply(subscription, table)))
        return subscription

    yield start
    for task in running:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def subscription_to(
    settings: Settings,
    table: SqliteUsers,
    *,
    topic: str | None = None,
    **options: Any,  # noqa: ANN401 - of subscribe
) -> Subscription:
    return subscribe(
        table,
        bootstrap_servers=settings.kafka_bootstrap_servers,
        events_topic=topic or settings.events_topic,
        snapshot_topic=settings.snapshot_topic,
        rest=0.01,
        **options,
    )


async def _apply(subscription: Subscription, table: SqliteUsers) -> None:
    async with subscription:
        async for batch in subscription.batches():
            table.apply(batch.changes, batch.bookmark, batch.poison)


def seen(table: SqliteUsers) -> Table:
    rows = table.connection.execute("SELECT id, version, deleted FROM users").fetchall()
    return {user_id: (version, bool(deleted)) for user_id, version, deleted in rows}


def truth(owner: Owner) -> Table:
    """Everybody as the log has them."""
    rows = owner.execute(
        "SELECT DISTINCT ON (user_id) user_id, version, type FROM log.events ORDER BY user_id, version DESC"
    ).fetchall()
    return {str(row["user_id"]): (row["version"], row["type"].startswith("UserDeleted")) for row in rows}


async def until_exact(table: SqliteUsers, expected: Callable[[], Table]) -> None:
    async def exact() -> bool:
        return seen(table) == expected()

    await aeventually(exact, what="the table is the truth")
