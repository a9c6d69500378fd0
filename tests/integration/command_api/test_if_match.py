from typing import Any

import httpx
import psycopg
import pytest

from tests.calls import codes, create, errors
from tests.people import ADA_ID

Owner = psycopg.Connection[dict[str, Any]]
METHODS = ["PUT", "PATCH", "DELETE"]


async def write(client: httpx.AsyncClient, method: str, user_id: str, *if_match: str) -> httpx.Response:
    body = None if method == "DELETE" else {"display_name": "Changed"}
    headers = [("If-Match", line) for line in if_match]
    return await client.request(method, f"/users/{user_id}", headers=headers, json=body)


@pytest.mark.parametrize("method", METHODS)
async def test_a_stale_version_is_refused_and_the_right_one_named(
    commands: httpx.AsyncClient, owner: Owner, method: str
) -> None:
    user = await create(commands)
    await commands.patch(f"/users/{user['id']}", json={"display_name": "Ada"})
    for stale in ('"1"', '"3"', 'W/"2"', '"02"', '"1", "3"', '"abc"', f'"{"9" * 5000}"'):
        answer = await write(commands, method, user["id"], stale)
        assert [error["parameter"] for error in errors(answer, 412)] == ["If-Match"]
        assert answer.headers["etag"] == '"2"'
    assert owner.execute("SELECT position FROM log.head").fetchall() == [{"position": 2}]


@pytest.mark.parametrize("method", METHODS)
async def test_the_named_version_is_changed(commands: httpx.AsyncClient, method: str) -> None:
    matching = [('"1"',), ("*",), ('W/"1", "1"',), ('"7"', '"1"'), ('"a,b", "1"',)]
    for number, lines in enumerate(matching):
        user = await create(commands, f"user{number}@example.com")
        answer = await write(commands, method, user["id"], *lines)
        assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')


@pytest.mark.parametrize("method", METHODS)
async def test_what_is_no_list_of_tags_is_refused(commands: httpx.AsyncClient, method: str) -> None:
    for malformed in ("", "1", '"1', "v1", '"1" "2"'):
        assert codes(await write(commands, method, str(ADA_ID), malformed), 400) == ["malformed_etag"]


async def test_a_stale_version_is_refused_even_when_nothing_would_change(commands: httpx.AsyncClient) -> None:
    user = await create(commands)
    answer = await commands.put(f"/users/{user['id']}", json={}, headers={"If-Match": '"2"'})
    assert codes(answer, 412) == ["version_mismatch"]


async def test_an_etag_of_an_answer_is_an_if_match(commands: httpx.AsyncClient) -> None:
    answer = await commands.post("/users", json={"email": "ada@example.com"})
    path = answer.headers["location"]
    for n in range(3):
        answer = await commands.put(path, json={"display_name": str(n)}, headers={"If-Match": answer.headers["etag"]})
        assert answer.status_code == 200


@pytest.mark.parametrize("method", METHODS)
async def test_an_unknown_user_has_no_version(commands: httpx.AsyncClient, method: str) -> None:
    assert codes(await write(commands, method, str(ADA_ID), "*"), 404) == ["user_not_found"]
