from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args
from uuid import UUID

import httpx
import psycopg
import pytest

from events.user import Status
from query_api import listing
from query_api.listing import Listing, Sort, cursor_after, question_of
from query_api.walks import BY_ORDER
from tests.calls import errors
from tests.integration.query_api.conftest import MakeUser
from tests.people import LATER, NOON
from tests.read_model import ReadModel

Owner = psycopg.Connection[dict[str, Any]]


async def names(queries: httpx.AsyncClient, **parameters: object) -> list[str]:
    answer = await queries.get("/users", params={name: str(value) for name, value in parameters.items()})
    assert answer.status_code == 200, answer.text
    return [user["display_name"] for user in answer.json()["users"]]


async def everybody(queries: httpx.AsyncClient, **parameters: str | int) -> list[dict[str, Any]]:
    """Page after page."""
    found: list[dict[str, Any]] = []
    while True:
        answer = await queries.get("/users", params=parameters)
        assert answer.status_code == 200, answer.text
        found += answer.json()["users"]
        if (cursor := answer.json()["next_cursor"]) is None:
            return found
        parameters["cursor"] = cursor


async def test_a_list_shows_living_users_whole(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser
) -> None:
    model.hold([make_user(1), make_user(2), make_user(3, deleted_at=LATER)])
    answer = await queries.get("/users")
    assert answer.json()["next_cursor"] is None
    assert "link" not in answer.headers
    assert [user["display_name"] for user in answer.json()["users"]] == ["User 1", "User 2"]
    assert answer.json()["users"][0] == (await queries.get(f"/users/{make_user(1).id}")).json()


async def test_a_list_of_nobody_is_empty(queries: httpx.AsyncClient) -> None:
    assert (await queries.get("/users")).json() == {"users": [], "next_cursor": None}


async def test_filters_narrow_a_list(queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser) -> None:
    model.hold(
        [
            make_user(1, email="Ada@Bücher.example", roles=("admin", "user")),
            make_user(2, status=Status.DISABLED, roles=("admin",)),
            make_user(3, roles=()),
        ]
    )
    assert await names(queries, email=" ADA@xn--BCHER-kva.example ") == ["User 1"]
    assert await names(queries, email="ada@example.com") == []
    assert await names(queries, email="no address") == []
    assert await names(queries, status="active") == ["User 1", "User 3"]
    assert await names(queries, status="disabled") == ["User 2"]
    assert await names(queries, role="admin") == ["User 1", "User 2"]
    assert await names(queries, role="adm") == []
    assert await names(queries, role="admin", status="disabled", q="user002") == ["User 2"]
    assert await names(queries, role="admin", status="disabled", q="user001") == []


async def test_q_finds_parts_of_address_and_name_and_means_every_character(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser
) -> None:
    called = ["Ärger 100%", "under_score", "back\\slash", "O'Hara", "Łódź", "Jose\u0301", "plain"]
    model.hold(make_user(number, display_name=name) for number, name in enumerate(called, start=1))
    searches = {
        "ÄRGER": ["Ärger 100%"],
        "ärger": ["Ärger 100%"],
        "łÓDŹ": ["Łódź"],
        "%": ["Ärger 100%"],
        "100%": ["Ärger 100%"],
        "1%0": [],
        "_": ["under_score"],
        "r_s": ["under_score"],
        "plai_": [],
        "\\": ["back\\slash"],
        "k\\s": ["back\\slash"],
        "'": ["O'Hara"],
        "''": [],
        "USER004@": ["O'Hara"],
        "jose\u0301": ["Jose\u0301"],
        "josé": ["Jose\u0301"],
        "nobody": [],
        " plain": ["plain"],
        "ain": ["plain"],
        "USER00": called,
    }
    assert {q: await names(queries, q=q) for q in searches} == searches


async def test_a_list_is_sorted(queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser) -> None:
    model.hold(
        [
            make_user(1, email="c@example.com", updated_at=LATER),
            make_user(2, email="A@example.com", updated_at=LATER),
            make_user(3, email="é@example.com", updated_at=NOON),
            make_user(4, email="a-b@example.com", updated_at=NOON),
        ]
    )
    orders = {
        "created_at": [1, 2, 3, 4],
        "-created_at": [4, 3, 2, 1],
        "updated_at": [3, 4, 1, 2],
        "-updated_at": [2, 1, 4, 3],
        "email": [4, 2, 1, 3],
        "-email": [3, 1, 2, 4],
    }
    for sort, order in orders.items():
        assert await names(queries, sort=sort) == [f"User {number}" for number in order]


@pytest.mark.parametrize("sort", get_args(Sort))
@pytest.mark.parametrize("analysed", [True, False])
def test_a_list_walks_its_order_though_the_plan_was_made_when_there_were_none(
    database_url: str, owner: Owner, sort: Sort, *, analysed: bool
) -> None:
    if analysed:
        owner.execute("ANALYZE read_model.users, read_model.users_updated")
    first = Listing.model_validate({"sort": sort})
    key = NOON.isoformat() if sort.endswith("_at") else "ada@example.com"
    with psycopg.connect(database_url, options=BY_ORDER) as connection:
        for one in (first, first.model_copy(update={"cursor": cursor_after(first, key, UUID(int=1))})):
            assert one.walks
            question = question_of(one)
            plan = str(connection.execute(b"EXPLAIN " + question.sql, question.values).fetchall())
            assert "Sort" not in plan
            assert "Index Scan" in plan


async def test_a_change_moves_a_user_to_its_new_place(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser
) -> None:
    users = [make_user(number) for number in (1, 2, 3)]
    model.hold(users)
    model.hold([replace(users[0], version=2, updated_at=LATER)])
    assert await names(queries, sort="-updated_at") == ["User 1", "User 3", "User 2"]


WRONG = [
    ("limit=0", "limit"),
    ("limit=-1", "limit"),
    ("limit=201", "limit"),
    ("limit=many", "limit"),
    ("limit=1.5", "limit"),
    ("limit=", "limit"),
    ("sort=name", "sort"),
    ("sort=--email", "sort"),
    ("status=asleep", "status"),
    ("q=", "q"),
    ("q=%00", "q"),
    ("q=a%00b", "q"),
    ("email=%00", "email"),
    ("role=%00", "role"),
    ("q=" + "x" * 101, "q"),
    ("email=" + "x" * 255, "email"),
    ("role=" + "x" * 33, "role"),
    ("offset=10", "offset"),
    ("page=2&limit=10", "page"),
    ("Limit=10", "Limit"),
]


async def test_a_wrong_parameter_is_named(queries: httpx.AsyncClient) -> None:
    for query, parameter in WRONG:
        assert [error["parameter"] for error in errors(await queries.get(f"/users?{query}"), 422)] == [parameter]


@pytest.mark.parametrize("sort", get_args(Sort))
async def test_what_q_finds_comes_in_every_order_and_page_by_page(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser, sort: Sort
) -> None:
    """Some by their names, some by their addresses, some by both, and one who would not be shown."""
    model.hold(
        [
            make_user(1, display_name="Needle", email="c@example.com", updated_at=LATER),
            make_user(2, display_name="Hay", email="needle@example.com", roles=("admin",)),
            make_user(3, display_name="Hay", email="h@example.com"),
            make_user(4, display_name="A needle", email="a-needle@example.com", status=Status.DISABLED),
            make_user(5, display_name=None, email="b@needle.example"),
            make_user(6, display_name="Needle", deleted_at=LATER),
        ]
    )
    order = {"created_at": [1, 2, 4, 5], "updated_at": [2, 4, 5, 1], "email": [4, 5, 1, 2]}[sort.removeprefix("-")]
    expected = [make_user(number).id for number in (reversed(order) if sort.startswith("-") else order)]
    for q in ("NEEDLE", "eedl", "ne", "e"):
        found = [user["id"] for user in await everybody(queries, q=q, sort=sort, limit=1)]
        assert [one for one in found if one != str(make_user(3).id)] == [str(one) for one in expected]
    assert await names(queries, q="needle", role="admin", sort=sort) == ["Hay"]
    assert await names(queries, q="needle", status="disabled", sort=sort) == ["A needle"]


@pytest.mark.parametrize("looked_through", [0, 3, 1000])
@pytest.mark.parametrize("sort", ["updated_at", "-updated_at"])
async def test_a_first_look_at_the_order_by_update_finds_what_all_of_it_has(
    queries: httpx.AsyncClient,
    model: ReadModel,
    make_user: MakeUser,
    monkeypatch: pytest.MonkeyPatch,
    sort: Sort,
    looked_through: int,
) -> None:
    monkeypatch.setattr(listing, "LOOKED_THROUGH", looked_through)
    users = [
        make_user(
            number,
            updated_at=NOON + timedelta(minutes=number),
            roles=("admin",) if number % 2 else ("user",),
            status=Status.DISABLED if number % 3 == 0 else Status.ACTIVE,
            deleted_at=LATER if number == 7 else None,
        )
        for number in range(12)
    ]
    model.hold(users)
    model.hold([replace(users[1], version=2, updated_at=NOON + timedelta(hours=1))])
    for filters, expected in (
        ({"role": "admin"}, [3, 5, 9, 11, 1]),
        ({"status": "disabled"}, [0, 3, 6, 9]),
        ({"role": "admin", "status": "active"}, [5, 11, 1]),
        ({"role": "admin", "status": "disabled", "email": "user003@example.com"}, [3]),
        ({"role": "nobody's"}, []),
    ):
        found = [user["display_name"] for user in await everybody(queries, **filters, sort=sort, limit=2)]
        order = reversed(expected) if sort.startswith("-") else expected
        assert found == [f"User {number}" for number in order]


@pytest.mark.parametrize("sort", get_args(Sort))
@pytest.mark.parametrize("looked_through", [1, 1000])
async def test_what_many_have_is_found_along_the_order(
    queries: httpx.AsyncClient,
    model: ReadModel,
    make_user: MakeUser,
    monkeypatch: pytest.MonkeyPatch,
    sort: Sort,
    looked_through: int,
) -> None:
    """Whom the sample says there are many of: by a first look at the order, or by all of it."""
    monkeypatch.setattr(listing, "LOOKED_THROUGH", looked_through)
    users = [make_user(number, display_name="Needle" if number % 2 else "Hay") for number in range(60)]
    model.hold(users)
    order = sorted(users, key=lambda user: user.email, reverse=sort.startswith("-"))
    for q, wanted in (("needle", [user for user in order if user.display_name == "Needle"]), ("user0", order)):
        found = [user["id"] for user in await everybody(queries, q=q, sort=sort, limit=7)]
        assert found == [str(user.id) for user in wanted]
