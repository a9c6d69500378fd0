import asyncio
from typing import Any

import httpx
import psycopg
import pytest

from tests.calls import codes, create
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]
KEY = {"Idempotency-Key": "key-1"}
ADA = {"email": "ada@example.com", "password": "correct horse"}


def positions(owner: Owner) -> int:
    return owner.execute("SELECT count(*) FROM log.events").fetchall()[0]["count"]


def same(first: httpx.Response, again: httpx.Response) -> None:
    """The same answer in all that a caller acts on, marked as given before."""
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for header in ("etag", "event-position", "location"):
        assert again.headers.get(header) == first.headers.get(header)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


async def test_a_repeated_creation_has_one_effect(commands: httpx.AsyncClient, owner: Owner) -> None:
    first = await commands.post("/users", json=ADA, headers=KEY)
    same(first, await commands.post("/users", json=ADA, headers=KEY))
    assert positions(owner) == 1


async def test_the_answer_stays_the_same_after_later_changes(commands: httpx.AsyncClient, owner: Owner) -> None:
    first = await commands.post("/users", json=ADA, headers=KEY)
    path = first.headers["location"]
    await commands.patch(path, json={"display_name": "Ada"})
    same(first, await commands.post("/users", json=ADA, headers=KEY))
    await commands.delete(path)
    same(first, await commands.post("/users", json=ADA, headers=KEY))
    assert positions(owner) == 3


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_repeated_update_has_one_effect(commands: httpx.AsyncClient, owner: Owner, method: str) -> None:
    user = await create(commands)
    await create(commands, "grace@example.com")
    path, change = f"/users/{user['id']}", {"display_name": "Ada"}
    first = await commands.request(method, path, json=change, headers=KEY)
    await commands.request(method, path, json={"display_name": "Countess"})
    same(first, await commands.request(method, path, json=change, headers=KEY))
    assert positions(owner) == 4
    assert (await commands.request(method, path, json={})).json()["display_name"] == "Countess"


async def test_a_repeat_with_the_old_version_still_has_its_answer(commands: httpx.AsyncClient) -> None:
    user = await create(commands)
    headers = KEY | {"If-Match": '"1"'}
    first = await commands.put(f"/users/{user['id']}", json={"display_name": "Ada"}, headers=headers)
    same(first, await commands.put(f"/users/{user['id']}", json={"display_name": "Ada"}, headers=headers))


async def test_a_repeated_deletion_has_its_answer(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands)
    first = await commands.delete(f"/users/{user['id']}", headers=KEY)
    assert first.status_code == 200
    same(first, await commands.delete(f"/users/{user['id']}", headers=KEY))
    assert positions(owner) == 2


async def test_a_repeat_of_what_changed_nothing_still_changes_nothing(
    commands: httpx.AsyncClient, owner: Owner
) -> None:
    user = await create(commands, display_name="Ada")
    path, change = f"/users/{user['id']}", {"display_name": "Ada"}
    first = await commands.put(path, json=change, headers=KEY)
    assert first.json()["changed"] == []
    await commands.put(path, json={"display_name": "Countess"})
    same(first, await commands.put(path, json=change, headers=KEY))
    assert positions(owner) == 2


async def test_a_key_goes_with_one_request(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands)
    path = f"/users/{user['id']}"
    await commands.put(path, json={"display_name": "Ada"}, headers=KEY)
    others = [
        await commands.put(path, json={"display_name": "Grace"}, headers=KEY),
        await commands.patch(path, json={"display_name": "Ada"}, headers=KEY),
        await commands.delete(path, headers=KEY),
        await commands.post("/users", json={"email": "grace@example.com"}, headers=KEY),
    ]
    assert [codes(other, 422) for other in others] == [["idempotency_key_reused"]] * 4
    assert positions(owner) == 2


async def test_a_refusal_does_not_use_the_key_up(commands: httpx.AsyncClient) -> None:
    grace = await create(commands, "ada@example.com")
    assert codes(await commands.post("/users", json=ADA, headers=KEY), 409) == ["email_taken"]
    await commands.delete(f"/users/{grace['id']}")
    assert (await commands.post("/users", json=ADA, headers=KEY)).status_code == 201


async def test_a_repeat_while_the_first_is_under_way_is_told_to_wait(commands: httpx.AsyncClient, owner: Owner) -> None:
    with owner.transaction():
        owner.execute("SELECT 1 FROM log.head FOR UPDATE")
        first = asyncio.create_task(commands.post("/users", json=ADA, headers=KEY))

        async def waits_for_the_head() -> bool:
            await asyncio.sleep(0)
            return bool(owner.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall())

        await aeventually(waits_for_the_head, what="the append waits")
        repeat = await commands.post("/users", json=ADA, headers=KEY)
    assert codes(repeat, 409) == ["idempotency_key_busy"]
    assert repeat.headers["retry-after"] == "1"
    assert (await first).status_code == 201
    same(await first, await commands.post("/users", json=ADA, headers=KEY))


async def test_an_expired_key_is_free_again(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands)
    path = f"/users/{user['id']}"
    await commands.put(path, json={"display_name": "Ada"}, headers=KEY)
    kept = owner.execute("SELECT expires_at - now() AS left FROM log.commands").fetchall()[0]["left"]
    assert 86_000 < kept.total_seconds() <= 86_400
    owner.execute("UPDATE log.commands SET expires_at = now() - interval '1 second'")
    again = await commands.put(path, json={"display_name": "Grace"}, headers=KEY)
    assert again.json()["changed"] == ["display_name"]
    same(again, await commands.put(path, json={"display_name": "Grace"}, headers=KEY))


async def test_nothing_personal_is_kept_with_a_key(commands: httpx.AsyncClient, owner: Owner) -> None:
    await commands.post("/users", json=ADA, headers=KEY)
    kept = str(owner.execute("SELECT commands::text FROM log.commands").fetchall())
    assert "ada" not in kept
    assert "horse" not in kept


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256])
async def test_a_key_that_cannot_be_kept_is_refused(commands: httpx.AsyncClient, key: str) -> None:
    answer = await commands.post("/users", json=ADA, headers={"Idempotency-Key": key})
    assert codes(answer, 400) == ["malformed_idempotency_key"]
