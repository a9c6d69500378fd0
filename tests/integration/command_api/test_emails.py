from typing import Any

import httpx
import psycopg
import pytest

from tests.calls import create, errors

Owner = psycopg.Connection[dict[str, Any]]


def taken(answer: httpx.Response) -> bool:
    return [(e["code"], e["pointer"]) for e in errors(answer, 409)] == [("email_taken", "#/email")]


@pytest.mark.parametrize(
    ("held", "tried"),
    [
        ("ada@example.com", "ada@example.com"),
        ("ada@example.com", " ADA@Example.COM "),
        ("strasse@example.com", "Straße@example.com"),
        ("jos\u00e9@example.com", "JOSE\u0301@example.com"),
        ("ada@bücher.example.com", "ada@xn--bcher-kva.example.com"),
    ],
)
async def test_one_address_has_one_user_however_it_is_typed(commands: httpx.AsyncClient, held: str, tried: str) -> None:
    await create(commands, held)
    assert taken(await commands.post("/users", json={"email": tried}))
    other = await create(commands, "other@example.com")
    assert taken(await commands.patch(f"/users/{other['id']}", json={"email": tried}))


async def test_a_changed_address_is_free_at_once_and_the_new_one_held(commands: httpx.AsyncClient) -> None:
    user = await create(commands, "ada@example.com")
    changed = await commands.patch(f"/users/{user['id']}", json={"email": "ada@lovelace.example.com"})
    assert changed.json()["changed"] == ["email"]
    assert taken(await commands.post("/users", json={"email": "ada@lovelace.example.com"}))
    await create(commands, "ada@example.com")
    assert taken(await commands.patch(f"/users/{user['id']}", json={"email": "ada@example.com"}))


async def test_a_user_may_type_their_own_address_another_way(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands, "ada@example.com")
    held = owner.execute("SELECT * FROM log.email_claims").fetchall()
    answer = await commands.patch(f"/users/{user['id']}", json={"email": "Ada@Example.com"})
    assert (answer.json()["email"], answer.json()["changed"]) == ("Ada@Example.com", ["email"])
    assert owner.execute("SELECT * FROM log.email_claims").fetchall() == held


async def test_a_refused_address_changes_nothing_else(commands: httpx.AsyncClient, owner: Owner) -> None:
    await create(commands, "ada@example.com")
    other = await create(commands, "other@example.com")
    sent = {"email": "ada@example.com", "display_name": "Other", "password": "correct horse"}
    assert taken(await commands.put(f"/users/{other['id']}", json=sent))
    assert owner.execute("SELECT position FROM log.head").fetchall() == [{"position": 2}]
    assert owner.execute("SELECT * FROM identity.credentials").fetchall() == []
