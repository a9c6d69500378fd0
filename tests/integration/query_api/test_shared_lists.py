"""Who asks for the same list at the same moment shares a query; what is seen of that is how many the database has."""

import asyncio
import itertools
from datetime import UTC, datetime
from typing import Any, LiteralString, get_args
from uuid import UUID

import httpx
import psycopg

from query_api.listing import Listing, Sort, cursor_after
from tests.integration.query_api.conftest import MakeUser
from tests.read_model import ReadModel
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]

OF_A_LIST: LiteralString = """
FROM pg_stat_activity
WHERE application_name = 'muster query lists' AND datname = current_database() AND wait_event_type = 'Lock'
"""
WAITING: LiteralString = "SELECT count(*) AS number" + OF_A_LIST
ENDING: LiteralString = "SELECT pg_terminate_backend(pid)" + OF_A_LIST


async def names(queries: httpx.AsyncClient, query: str) -> list[str]:
    answer = await queries.get(f"/users{query}")
    assert answer.status_code == 200, answer.text
    return [user["display_name"] for user in answer.json()["users"]]


async def test_the_same_list_is_read_once_for_all_who_wait_for_it(
    queries: httpx.AsyncClient, model: ReadModel, owner: Owner, make_user: MakeUser
) -> None:
    model.hold([make_user(1), make_user(2, roles=("admin",))])

    async def waiting(number: int) -> None:
        async def seen() -> bool:
            owner.execute("SELECT pg_stat_clear_snapshot()")
            return owner.execute(WAITING).fetchall() == [{"number": number}]

        await aeventually(seen, what=f"{number} lists under way")

    with owner.transaction():
        owner.execute("LOCK TABLE read_model.users")
        same = [asyncio.create_task(names(queries, "")) for _ in range(10)]
        await waiting(1)
        other = asyncio.create_task(names(queries, "?role=admin"))
        await waiting(2)
        model.hold([make_user(3)])
        # after the first is under way: theirs is the next
        late = [asyncio.create_task(names(queries, "")) for _ in range(10)]
        await asyncio.sleep(0)
        await waiting(2)
    assert await other == ["User 2"]
    assert await asyncio.gather(*late) == [["User 1", "User 2", "User 3"]] * 10
    assert {len(found) for found in await asyncio.gather(*same)} <= {2, 3}


async def test_a_wrong_cursor_is_refused_to_each_who_sends_it(queries: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(queries.get("/users?cursor=x") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {422}


async def test_pages_that_are_asked_for_together_are_each_as_if_asked_for_alone(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser
) -> None:
    model.hold([make_user(number) for number in range(1, 13)])
    alone: dict[str, Any] = {"/users?cursor=x": None}
    for sort, limit in itertools.product(get_args(Sort), (1, 5)):
        path: str | None = f"/users?sort={sort}&limit={limit}"
        while path is not None:
            answer = await queries.get(path)
            alone[path] = answer.json()
            path = answer.links["next"]["url"] if "next" in answer.links else None
    for end in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        # a cursor that somebody made up spoils no other page
        path = f"/users?cursor={cursor_after(Listing.model_validate({}), end, UUID(int=0))}"
        alone[path] = (await queries.get(path)).raise_for_status().json()
    paths = [*alone, *reversed(alone)]
    together = await asyncio.gather(*(queries.get(path) for path in paths))
    wrong = {path for path, answer in zip(paths, together, strict=True) if answer.status_code == 422}
    assert wrong == {"/users?cursor=x"}
    for path, answer in zip(paths, together, strict=True):
        assert path in wrong or answer.json() == alone[path]


async def test_a_failure_is_told_to_all_and_the_next_one_reads(
    queries: httpx.AsyncClient, model: ReadModel, owner: Owner, make_user: MakeUser
) -> None:
    model.hold([make_user(1)])
    with owner.transaction():
        owner.execute("LOCK TABLE read_model.users")
        tasks = [asyncio.create_task(queries.get("/users")) for _ in range(5)]

        async def ended() -> bool:
            owner.execute("SELECT pg_stat_clear_snapshot()")
            return bool(owner.execute(ENDING).fetchall())

        await aeventually(ended, what="the end of the query")
        assert 503 in {task.result().status_code for task in (await asyncio.wait(tasks, timeout=1))[0]}
    await asyncio.wait(tasks)
    assert await names(queries, "") == ["User 1"]
