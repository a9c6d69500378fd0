"""What PostgreSQL collects for GIN indexes is merged on a connection of its own, and holds nobody up for long."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import psycopg
import pytest

from events.wire import user_to_wire
from projector import pending_lists
from projector.pending_lists import ENOUGH, MOST, PATIENCE, PendingLists
from projector.rows import row_of
from runtime.database import Session
from tests.databases import as_role
from tests.integration.projector.conftest import Projected

# merges what there is, too: pages that it found in the list
PENDING = "SELECT gin_clean_pending_list('read_model.users_names_idx') AS pages"


def pending(owner: psycopg.Connection[dict[str, Any]]) -> int:
    found = owner.execute(PENDING).fetchone()
    assert found is not None
    return found["pages"]


def write_everybody(projected: Projected) -> None:
    newest = {event.user.id: (place, event) for place, event in enumerate(projected.events, 1)}
    rows = [row_of(user_to_wire(event.user), place + 1000) | {"version": 1000} for place, event in newest.values()]
    projected.owner.execute("SELECT read_model.put('read_model.users', %s, NULL)", (orjson.dumps(rows).decode(),))


@asynccontextmanager
async def merging(url: str) -> AsyncGenerator[PendingLists]:
    session = Session(url, application="merging in a test", timeout=10)
    lists = PendingLists(session)
    running = asyncio.create_task(lists.run())
    try:
        yield lists
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait({running})
        await session.close()


async def test_what_was_written_is_merged_before_too_much_is_added(projected: Projected, database_url: str) -> None:
    assert pending(projected.owner) > 0
    write_everybody(projected)
    async with merging(as_role(database_url, "muster_projector")) as lists, asyncio.timeout(PATIENCE):
        await lists.added(MOST)
    assert pending(projected.owner) == 0


async def test_few_rows_are_merged_after_a_while(
    projected: Projected, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_lists, "EVERY", 0.05)
    pending(projected.owner)
    write_everybody(projected)
    async with merging(as_role(database_url, "muster_projector")) as lists:
        await lists.added(ENOUGH - 1)
        async with asyncio.timeout(10):
            while lists.unmerged:  # noqa: ASYNC110 - it tells no event
                await asyncio.sleep(0.01)
    assert pending(projected.owner) == 0


@pytest.mark.parametrize("role", ["muster_query", "nobody"])
async def test_who_cannot_merge_holds_nobody_up(projected: Projected, database_url: str, role: str) -> None:
    write_everybody(projected)
    async with merging(as_role(database_url, role)) as lists, asyncio.timeout(PATIENCE):
        for _ in range(3):
            await lists.added(MOST)
    assert pending(projected.owner) > 0


async def test_whoever_waits_for_a_merge_that_does_not_come_goes_on(
    projected: Projected, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_lists, "PATIENCE", 0.1)
    write_everybody(projected)
    with psycopg.connect(database_url) as holding:
        holding.execute("LOCK TABLE read_model.users IN ACCESS EXCLUSIVE MODE")
        async with merging(as_role(database_url, "muster_projector")) as lists:
            async with asyncio.timeout(5):
                await lists.added(MOST)
                await lists.added(MOST)
            holding.rollback()
            async with asyncio.timeout(10):
                while lists.unmerged:  # noqa: ASYNC110 - it tells no event
                    await asyncio.sleep(0.01)
