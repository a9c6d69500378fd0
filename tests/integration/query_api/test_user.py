from dataclasses import replace
from typing import Any

import httpx
import psycopg

from events.user import Status
from events.wire import user_to_wire
from query_api.model import BY_ID
from tests.calls import codes, errors
from tests.people import ADA, ADA_ID, LATER, NOON
from tests.read_model import ReadModel

Owner = psycopg.Connection[dict[str, Any]]
PATH = f"/users/{ADA_ID}"


async def test_a_user_is_answered_whole(queries: httpx.AsyncClient, model: ReadModel) -> None:
    attributes: dict[str, Any] = {
        "big": 18446744073709551615,
        "float": 1.5,
        "large": 1e300,
        "small": 5e-324,
        "text": "é\u2028\U0001f600",
        'a "key"': "a 'line'\\\r\n\x1f",
        "list": [None, True, {"x": {}}],
    }
    user = replace(
        ADA,
        version=3,
        email='"a, b"@bücher.example',
        display_name='"Ada", {\\} 100% \\u0041\U0001f600',
        status=Status.DISABLED,
        roles=("admin", "user"),
        attributes=attributes,
        password_changed_at=NOON,
    )
    model.hold([user], position=12)
    answer = await queries.get(PATH)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["etag"] == '"3"'
    assert answer.headers["event-position"] == "12"
    assert answer.headers["cache-control"] == "no-cache"
    expected = user_to_wire(user)
    del expected["deleted_at"]
    assert answer.json() == expected
    assert list(answer.json()) == list(expected)
    assert (await queries.get("/users")).json()["users"] == [expected]


async def test_an_unchanged_user_is_not_sent_again(queries: httpx.AsyncClient, model: ReadModel) -> None:
    model.hold([replace(ADA, version=3)])
    for held in ('"3"', 'W/"3"', "*", '"1", "3"', '"a,b",W/"3"'):
        answer = await queries.get(PATH, headers={"If-None-Match": held})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == '"3"'
        assert answer.headers["event-position"] == "7"
        assert "content-type" not in answer.headers
    for other in ('"2"', "3", "", '"3', '"03"', '"3x"'):
        assert (await queries.get(PATH, headers={"If-None-Match": other})).status_code == 200
    two_lines = [("If-None-Match", '"1"'), ("If-None-Match", '"3"')]
    assert (await queries.get(PATH, headers=two_lines)).status_code == 304


def test_users_are_looked_up_by_the_index_though_the_plan_was_made_when_there_were_none(owner: Owner) -> None:
    owner.execute("SET plan_cache_mode = force_generic_plan")
    owner.execute(f"PREPARE by_id (uuid[]) AS {BY_ID.replace('%s', '$1')}".encode())
    plan = str(owner.execute(f"EXPLAIN EXECUTE by_id ('{{{ADA_ID}}}')".encode()).fetchall())
    assert "Index Scan using users_pkey" in plan
    assert "Seq Scan" not in plan


async def test_a_user_who_never_was_is_not_found(queries: httpx.AsyncClient) -> None:
    assert codes(await queries.get(PATH), 404) == ["user_not_found"]
    assert codes(await queries.get(PATH, headers={"If-None-Match": "*"}), 404) == ["user_not_found"]


async def test_a_deleted_user_is_gone_and_their_data_too(
    queries: httpx.AsyncClient, model: ReadModel, owner: Owner
) -> None:
    model.hold([ADA])
    model.hold([replace(ADA, version=2, updated_at=LATER, deleted_at=LATER)])
    assert codes(await queries.get(PATH), 410) == ["user_deleted"]
    assert codes(await queries.get(PATH, headers={"If-None-Match": '"2"'}), 410) == ["user_deleted"]
    assert "ada" not in str(owner.execute("SELECT u::text FROM read_model.users u").fetchall()).lower()


async def test_an_id_in_capitals_or_without_dashes_is_the_same(queries: httpx.AsyncClient, model: ReadModel) -> None:
    model.hold([ADA])
    for same in (str(ADA_ID).upper(), ADA_ID.hex):
        assert (await queries.get(f"/users/{same}")).json()["id"] == str(ADA_ID)


async def test_what_is_no_id_is_a_wrong_parameter(queries: httpx.AsyncClient) -> None:
    for wrong in ("7", "mee", "%00", f"{ADA_ID}0"):
        assert [error["parameter"] for error in errors(await queries.get(f"/users/{wrong}"), 422)] == ["id"]


async def test_a_stranger_reads_nothing(queries: httpx.AsyncClient, model: ReadModel) -> None:
    model.hold([ADA])
    del queries.headers["authorization"]
    for path in (PATH, "/users", "/users?limit=x", "/users/x"):
        answer = await queries.get(path, headers={"Min-Position": "x"})
        assert codes(answer, 401) == ["unauthenticated"]
        assert answer.headers["www-authenticate"] == 'Bearer realm="muster"'


async def test_reads_cannot_write(queries: httpx.AsyncClient) -> None:
    for path, method in ((PATH, "DELETE"), (PATH, "PUT"), ("/users", "POST")):
        answer = await queries.request(method, path)
        assert codes(answer, 405) == ["method_not_allowed"]
        assert answer.headers["allow"] == "GET"
