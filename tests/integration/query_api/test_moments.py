"""Users as they were: one, and lists of them, by time, position and version."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from identity.roles import Scope
from query_api import listing_then
from query_api.app import create_app
from tests.apps import client_of
from tests.calls import Record, codes, create
from tests.databases import MakeSettings
from tests.histories import History
from tests.tokens import authorized

Owner = psycopg.Connection[dict[str, Any]]


def recorded_at(owner: Owner, position: int) -> datetime:
    return owner.execute("SELECT recorded_at FROM log.events WHERE position = %s", (position,)).fetchall()[0][
        "recorded_at"
    ]


@pytest.fixture
async def ada(commands: httpx.AsyncClient) -> Record:
    """Positions 1 to 4: created, renamed, created somebody else, deleted."""
    ada = await create(commands, display_name="Ada")
    assert (await commands.patch(f"/users/{ada['id']}", json={"display_name": "Ada Lovelace"})).status_code == 200
    await create(commands, "bob@example.com", display_name="Bob", roles=["auditor"])
    assert (await commands.delete(f"/users/{ada['id']}")).status_code == 200
    return ada


async def test_a_user_is_read_as_they_were(queries: httpx.AsyncClient, owner: Owner, ada: Record) -> None:
    path = f"/users/{ada['id']}"
    for version, name in ((1, "Ada"), (2, "Ada Lovelace")):
        moments = (
            {"version": version},
            {"at_position": version},
            {"as_of": recorded_at(owner, version).isoformat()},
            {"as_of": (recorded_at(owner, version + 1) - timedelta(microseconds=1)).isoformat()},
        )
        for moment in moments:
            answer = await queries.get(path, params=moment)
            assert answer.status_code == 200, answer.text
            assert (answer.json()["display_name"], answer.json()["version"]) == (name, version)
            assert (answer.headers["etag"], answer.headers["event-position"]) == (f'"{version}"', str(version))
            assert answer.json().keys() == ada.keys() - {"changed"}


async def test_the_moment_is_told_as_a_position(queries: httpx.AsyncClient, owner: Owner, ada: Record) -> None:
    answer = await queries.get(f"/users/{ada['id']}", params={"as_of": recorded_at(owner, 3).isoformat()})
    assert (answer.headers["as-of-position"], answer.headers["event-position"]) == ("3", "2")


async def test_before_creation_and_after_deletion(queries: httpx.AsyncClient, owner: Owner, ada: Record) -> None:
    path = f"/users/{ada['id']}"
    before = (recorded_at(owner, 1) - timedelta(microseconds=1)).isoformat()
    for moment in ({"at_position": 0}, {"as_of": before}, {"as_of": "1970-01-01T00:00:00Z"}):
        assert codes(await queries.get(path, params=moment), 404) == ["user_not_found"]
    for moment in ({"at_position": 4}, {"version": 3}, {"as_of": recorded_at(owner, 4).isoformat()}):
        assert codes(await queries.get(path, params=moment), 410) == ["user_deleted"]
    assert codes(await queries.get(path, params={"version": 4}), 404) == ["user_not_found"]


@pytest.mark.parametrize(
    ("moment", "code"),
    [
        ({"as_of": "2999-01-01T00:00:00Z"}, "in_the_future"),
        ({"as_of": "2026-03-01T00:00:00"}, "timezone_aware"),
        ({"as_of": "yesterday"}, "datetime_from_date_parsing"),
        ({"at_position": "5"}, "no_such_position"),
        ({"at_position": "-1"}, "greater_than_equal"),
    ],
)
async def test_what_is_no_moment_is_refused(
    queries: httpx.AsyncClient, ada: Record, moment: dict[str, str], code: str
) -> None:
    for path in ("/users", f"/users/{ada['id']}"):
        assert codes(await queries.get(path, params=moment), 422) == [code]


async def test_only_one_moment_at_once(queries: httpx.AsyncClient, ada: Record) -> None:
    moments = {"at_position": "1", "as_of": "2026-03-01T00:00:00Z"}
    assert codes(await queries.get("/users", params=moments), 422) == ["one_moment"] * 2
    answer = await queries.get(f"/users/{ada['id']}", params=moments | {"version": "1"})
    assert codes(answer, 422) == ["one_moment"] * 3


async def test_the_past_is_for_auditors(queries: httpx.AsyncClient, ada: Record) -> None:
    headers = authorized(scopes=frozenset({Scope.USERS_READ}))
    for path in ("/users", f"/users/{ada['id']}"):
        answer = await queries.get(path, params={"at_position": 1}, headers=headers)
        assert codes(answer, 403) == ["insufficient_scope"]
        assert 'scope="users:read events:read"' in answer.headers["www-authenticate"]


async def test_without_the_key_there_is_the_present_alone(make_settings: MakeSettings, ada: Record) -> None:
    async with client_of(create_app(make_settings("muster_query", kek=None, kek_file=None))) as queries:
        assert (await queries.get("/users")).status_code == 200
        for path in ("/users?at_position=1", f"/users/{ada['id']}/history", "/events"):
            assert codes(await queries.get(path), 503) == ["no_key"]


async def names(queries: httpx.AsyncClient, **parameters: object) -> list[str]:
    """Of all pages."""
    found: list[str] = []
    path: str | None = "/users"
    query: Any = parameters
    while path is not None:
        answer = await queries.get(path, params=query)
        assert answer.status_code == 200, answer.text
        found += [user["display_name"] for user in answer.json()["users"]]
        path, query = (answer.links["next"]["url"], None) if "next" in answer.links else (None, None)
    return found


@pytest.mark.usefixtures("ada")
async def test_a_list_as_of_every_position(queries: httpx.AsyncClient) -> None:
    expected: list[Sequence[str]] = [[], ["Ada"], ["Ada Lovelace"], ["Ada Lovelace", "Bob"], ["Bob"]]
    for position, users in enumerate(expected):
        assert await names(queries, at_position=position) == users
        assert await names(queries, at_position=position, sort="-created_at") == users[::-1]


@pytest.mark.usefixtures("ada")
async def test_a_list_then_has_the_lists_filters(queries: httpx.AsyncClient) -> None:
    assert await names(queries, at_position=3, role="auditor") == ["Bob"]
    assert await names(queries, at_position=3, email="ADA@example.com") == ["Ada Lovelace"]
    assert await names(queries, at_position=1, q="lovelace") == []
    assert await names(queries, at_position=3, q="lOvE") == ["Ada Lovelace"]
    assert await names(queries, at_position=3, status="disabled") == []
    answer = await queries.get("/users", params={"at_position": 3, "sort": "email"})
    assert codes(answer, 422) == ["no_such_sort_then"]


@pytest.mark.parametrize("sort", ["created_at", "-created_at"])
@pytest.mark.parametrize("limit", [1, 3, 200])
async def test_pages_then_have_everybody_once_whatever_happens_meanwhile(
    queries: httpx.AsyncClient, history: History, owner: Owner, sort: str, limit: int
) -> None:
    history.create(range(10))
    history.delete([3])
    moment = recorded_at(owner, history.head).isoformat()
    expected = [f"User {number}" for number in range(10) if number != 3]
    answer = await queries.get("/users", params={"as_of": moment, "sort": sort, "limit": limit})
    found = [user["display_name"] for user in answer.json()["users"]]
    history.delete([1, 8])
    history.create([11])
    while "next" in answer.links:
        answer = await queries.get(answer.links["next"]["url"])
        found += [user["display_name"] for user in answer.json()["users"]]
    assert found == (expected if sort == "created_at" else expected[::-1])


async def test_a_page_examines_so_many_and_says_where_to_go_on(
    queries: httpx.AsyncClient, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_then, "EXAMINED", 4)
    monkeypatch.setattr(listing_then, "AT_ONCE", 2)
    history.create(range(9))
    answer = await queries.get("/users", params={"at_position": 9, "q": "user 8"})
    assert (answer.json()["users"], "next" in answer.links) == ([], True)
    assert await names(queries, at_position=9, q="user 8") == ["User 8"]


async def test_a_cursor_goes_with_its_list(queries: httpx.AsyncClient, history: History) -> None:
    history.create(range(3))
    cursor = (await queries.get("/users", params={"at_position": 3, "limit": 1})).json()["next_cursor"]
    for parameters in (
        {"at_position": 2, "cursor": cursor},
        {"at_position": 3, "cursor": cursor, "role": "user"},
        {"at_position": 3, "cursor": cursor, "sort": "-created_at"},
        {"at_position": 3, "cursor": "é"},
        {"cursor": cursor},
    ):
        assert codes(await queries.get("/users", params=parameters), 422) == ["bad_cursor"]  # pyright: ignore[reportArgumentType]


async def test_who_cannot_be_read_is_counted(queries: httpx.AsyncClient, history: History) -> None:
    history.create(range(3))
    history.damage(1, 1)
    answer = await queries.get("/users", params={"at_position": 3})
    assert [user["display_name"] for user in answer.json()["users"]] == ["User 0", "User 2"]
    assert answer.headers["unreadable-users"] == "1"


async def test_a_time_means_the_last_position_until_then(owner: Owner, history: History) -> None:
    """Of any length of the log, and with several events of one time."""
    for size in range(1, 9):
        history.create([size])
        owner.execute("UPDATE log.events SET recorded_at = timestamptz '2026-01-01Z' + (position / 2) * interval '1 s'")
        for half_seconds in range(-1, size + 2):
            moment = "2026-01-01T00:00:00Z"
            row = owner.execute(
                "SELECT log.position_at(%s::timestamptz + %s * interval '0.5 s') AS found,"
                " (SELECT coalesce(max(position), 0) FROM log.events"
                " WHERE recorded_at <= %s::timestamptz + %s * interval '0.5 s') AS expected",
                (moment, half_seconds, moment, half_seconds),
            ).fetchall()[0]
            assert row["found"] == row["expected"]
