import base64
from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest

from events.user import Status
from tests.calls import codes, errors
from tests.integration.query_api.conftest import MakeUser
from tests.people import NOON
from tests.read_model import ReadModel

SORTS = ["created_at", "-created_at", "email", "-email", "updated_at", "-updated_at"]


def next_of(answer: httpx.Response) -> str | None:
    return answer.links.get("next", {}).get("url")


@pytest.mark.parametrize("sort", SORTS)
async def test_following_the_links_shows_everybody_once_while_others_come_and_change(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser, sort: str
) -> None:
    moments = [NOON + timedelta(microseconds=number // 20) for number in range(250)]
    users = [make_user(1000 + number, created_at=moments[number], updated_at=moments[number]) for number in range(250)]
    model.hold(users)
    seen = Counter[str]()
    shown: list[dict[str, Any]] = []
    url: str | None = f"/users?sort={sort}&limit=40"
    newcomer = 0
    while url is not None:
        answer = await queries.get(url)
        assert answer.status_code == 200
        page = answer.json()["users"]
        assert len(page) <= 40
        seen.update(user["id"] for user in page)
        shown += page
        url = next_of(answer)
        assert (answer.json()["next_cursor"] is None) == (url is None)
        for at in (NOON - timedelta(days=1), NOON, NOON + timedelta(microseconds=5), NOON + timedelta(days=1)):
            newcomer += 1
            model.hold([make_user(newcomer, created_at=at, updated_at=at, email=f"user{newcomer}@example.org")])
    assert {seen[str(user.id)] for user in users} == {1}
    assert max(seen.values()) == 1
    keys = [(user[sort.removeprefix("-")], user["id"]) for user in shown]
    assert keys == sorted(keys, reverse=sort.startswith("-"))


async def test_a_page_that_just_holds_the_rest_is_the_last(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser
) -> None:
    model.hold([make_user(number) for number in range(1, 5)])
    first = await queries.get("/users?limit=2")
    link = next_of(first)
    assert link is not None
    last = await queries.get(link)
    assert [len(page.json()["users"]) for page in (first, last)] == [2, 2]
    assert next_of(last) is None


async def test_the_link_keeps_filters_sort_and_limit(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser
) -> None:
    model.hold(
        [
            make_user(number, roles=("a&b",), display_name=f"50% é+{number}", status=Status.DISABLED)
            for number in range(9)
        ]
    )
    model.hold([make_user(number) for number in range(10, 20)])
    filters = {"role": "a&b", "status": "disabled", "q": "50% É+", "sort": "-email", "limit": "4"}
    url: str | None = str(httpx.URL("/users", params=filters))
    found: list[str] = []
    pages = 0
    while url is not None:
        answer = await queries.get(url)
        found += [user["email"] for user in answer.json()["users"]]
        url, pages = next_of(answer), pages + 1
    assert found == [f"user{number:03}@example.com" for number in reversed(range(9))]
    assert pages == 3


async def test_the_cursor_of_the_body_is_that_of_the_link(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser
) -> None:
    model.hold([make_user(number) for number in range(1, 4)])
    first = await queries.get("/users", params={"limit": 1})
    cursor = first.json()["next_cursor"]
    by_cursor = await queries.get("/users", params={"limit": 1, "cursor": cursor})
    assert by_cursor.json()["users"] == (await queries.get(str(next_of(first)))).json()["users"]
    wider = await queries.get("/users", params={"limit": 200, "cursor": cursor})
    assert [user["display_name"] for user in wider.json()["users"]] == ["User 2", "User 3"]


async def test_a_long_search_has_a_next_page_too(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser
) -> None:
    name = "\U0001f469" * 100
    model.hold([make_user(number, display_name=name, email=f"{'é' * 60}{number}@example.com") for number in (1, 2)])
    first = await queries.get("/users", params={"q": name, "limit": 1, "sort": "email"})
    assert len((await queries.get(str(next_of(first)))).json()["users"]) == 1


@pytest.mark.parametrize(
    "change", [{"sort": "-created_at"}, {"sort": "email"}, {"q": "user"}, {"status": "active"}, {"role": "user"}]
)
async def test_a_cursor_belongs_to_its_own_list(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser, change: dict[str, str]
) -> None:
    model.hold([make_user(number) for number in range(1, 4)])
    cursor = (await queries.get("/users?limit=1")).json()["next_cursor"]
    answer = await queries.get("/users", params={"cursor": cursor, **change})
    assert [(error["code"], error["parameter"]) for error in errors(answer, 422)] == [("bad_cursor", "cursor")]


def forged(cursor: str, *, key: object = None, last_id: object = None) -> str:
    kind, old_key, old_id = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    parts = [kind, old_key if key is None else key, old_id if last_id is None else last_id]
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode()


async def test_a_cursor_that_no_page_gave_is_refused(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser
) -> None:
    model.hold([make_user(number) for number in range(1, 4)])
    times = (await queries.get("/users?limit=1")).json()["next_cursor"]
    emails = (await queries.get("/users?limit=1&sort=email")).json()["next_cursor"]
    wrong = [
        "",
        "x",
        "%%%",
        "é",
        "bnVsbA",
        "e30",
        "W10",
        "WzEsMiwzXQ",
        times[:-4],
        times + "AAAA",
        times[4:],
        "x" * 4000,
    ]
    wrong += [forged(times, key=key) for key in (7, "now", "0001-01-01T00:00:00+14:00", ["a"], {"a": 1}, "")]
    wrong += [forged(times, last_id=last_id) for last_id in (7, "x", ["a"], str(make_user(1).id) + "0")]
    for cursor in wrong:
        assert codes(await queries.get("/users", params={"cursor": cursor}), 422)
    for key in (7, "\x00", ["a"], {"a": 1}, True):
        answer = await queries.get("/users", params={"cursor": forged(emails, key=key), "sort": "email"})
        assert codes(answer, 422) == ["bad_cursor"]


async def test_200_is_the_most(queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser) -> None:
    model.hold([make_user(number) for number in range(1, 202)])
    assert len((await queries.get("/users?limit=200")).json()["users"]) == 200
    assert len((await queries.get("/users")).json()["users"]) == 50
    assert len((await queries.get("/users?limit=1")).json()["users"]) == 1
