from typing import Any

import httpx
import psycopg

from tests.calls import codes, create
from tests.people import ADA_ID

Owner = psycopg.Connection[dict[str, Any]]


async def test_a_deletion_says_so(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands, password="correct horse")
    answer = await commands.delete(f"/users/{user['id']}")
    assert answer.status_code == 200
    assert (answer.headers["etag"], answer.headers["event-position"]) == ('"2"', "2")
    assert answer.json() == {
        "message": "User deleted successfully",
        "id": user["id"],
        "version": 2,
        "deleted_at": answer.json()["deleted_at"],
    }
    assert answer.json()["deleted_at"] > user["created_at"]
    assert owner.execute("SELECT type FROM log.events ORDER BY position").fetchall() == [
        {"type": "UserCreated"},
        {"type": "UserDeleted"},
    ]


async def test_nothing_is_left_to_log_in_with(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands, password="correct horse")
    await commands.delete(f"/users/{user['id']}")
    assert owner.execute("SELECT * FROM identity.credentials").fetchall() == []
    assert owner.execute("SELECT * FROM log.email_claims").fetchall() == []


async def test_a_deleted_user_cannot_be_written(commands: httpx.AsyncClient) -> None:
    path = f"/users/{(await create(commands))['id']}"
    await commands.delete(path)
    assert codes(await commands.delete(path), 410) == ["user_deleted"]
    assert codes(await commands.delete(path, headers={"If-Match": '"1"'}), 410) == ["user_deleted"]
    assert codes(await commands.put(path, json={"display_name": "Ada"}), 410) == ["user_deleted"]
    assert codes(await commands.patch(path, json={}), 410) == ["user_deleted"]


async def test_an_unknown_user_cannot_be_deleted(commands: httpx.AsyncClient) -> None:
    assert codes(await commands.delete(f"/users/{ADA_ID}"), 404) == ["user_not_found"]


async def test_the_email_is_free_again_for_another_user(commands: httpx.AsyncClient) -> None:
    first = await create(commands, "ada@example.com")
    await commands.delete(f"/users/{first['id']}")
    second = await create(commands, "ada@example.com")
    assert second["id"] != first["id"]
    assert second["version"] == 1
