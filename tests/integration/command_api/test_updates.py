from typing import Any

import httpx
import psycopg
import pytest

from tests.calls import codes, create
from tests.people import ADA_ID

Owner = psycopg.Connection[dict[str, Any]]
WHOLE: dict[str, Any] = {
    "display_name": "Ada",
    "status": "disabled",
    "roles": ["admin", "user"],
    "attributes": {"team": "engines", "desk": {"floor": 1, "seat": 2}},
}


def events(owner: Owner) -> int:
    return owner.execute("SELECT count(*) FROM log.events").fetchall()[0]["count"]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_fields_left_out_stay(commands: httpx.AsyncClient, method: str) -> None:
    before = await create(commands, **WHOLE)
    answer = await commands.request(method, f"/users/{before['id']}", json={"display_name": "Ada Lovelace"})
    after = answer.json()
    assert answer.status_code == 200
    assert (answer.headers["etag"], answer.headers["event-position"]) == ('"2"', "2")
    assert after["changed"] == ["display_name"]
    assert after["updated_at"] > before["updated_at"]
    assert after == before | {
        "version": 2,
        "display_name": "Ada Lovelace",
        "updated_at": after["updated_at"],
        "changed": ["display_name"],
    }


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_null_clears_what_is_optional(commands: httpx.AsyncClient, method: str) -> None:
    user = await create(commands, **WHOLE)
    cleared = {"display_name": None, "roles": None, "attributes": None}
    after = (await commands.request(method, f"/users/{user['id']}", json=cleared)).json()
    assert {name: after[name] for name in cleared} == {"display_name": None, "roles": [], "attributes": {}}
    assert after["changed"] == ["attributes", "display_name", "roles"]


async def test_put_replaces_attributes(commands: httpx.AsyncClient) -> None:
    user = await create(commands, **WHOLE)
    sent = {"desk": {"seat": None}}
    after = (await commands.put(f"/users/{user['id']}", json={"attributes": sent})).json()
    assert after["attributes"] == sent


async def test_patch_merges_attributes(commands: httpx.AsyncClient) -> None:
    user = await create(commands, **WHOLE)
    sent = {"desk": {"seat": None, "lamp": True}, "tags": [None, 1]}
    after = (await commands.patch(f"/users/{user['id']}", json={"attributes": sent})).json()
    assert after["attributes"] == {"team": "engines", "desk": {"floor": 1, "lamp": True}, "tags": [None, 1]}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_an_update_that_changes_nothing_says_so_and_appends_nothing(
    commands: httpx.AsyncClient, owner: Owner, method: str
) -> None:
    user = await create(commands, **WHOLE)
    for same in ({}, WHOLE, {"roles": ["user", "admin", "admin"]}, {"email": " ada@example.com "}):
        answer = await commands.request(method, f"/users/{user['id']}", json=same)
        assert answer.status_code == 200
        assert answer.json() == user | {"changed": []}
        assert (answer.headers["etag"], answer.headers["event-position"]) == ('"1"', "1")
    assert events(owner) == 1


async def test_true_is_not_one(commands: httpx.AsyncClient) -> None:
    user = await create(commands, attributes={"x": True})
    for version, value in enumerate((1, 1.0, True), start=2):
        after = (await commands.put(f"/users/{user['id']}", json={"attributes": {"x": value}})).json()
        assert (after["version"], after["changed"]) == (version, ["attributes"])


async def test_a_new_password_is_told_by_its_time_alone(commands: httpx.AsyncClient) -> None:
    user = await create(commands)
    first = (await commands.patch(f"/users/{user['id']}", json={"password": "correct horse"})).json()
    second = (await commands.patch(f"/users/{user['id']}", json={"password": "correct horse"})).json()
    assert first["changed"] == second["changed"] == ["password_changed_at"]
    assert first["password_changed_at"] == first["updated_at"] < second["password_changed_at"]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_an_unknown_user_is_not_found(commands: httpx.AsyncClient, method: str) -> None:
    answer = await commands.request(method, f"/users/{ADA_ID}", json={"display_name": "Ada"})
    assert codes(answer, 404) == ["user_not_found"]


async def test_every_event_carries_record_and_changes_in_the_clear_part_and_the_sealed(
    commands: httpx.AsyncClient, owner: Owner
) -> None:
    user = await create(commands, **WHOLE)
    await commands.patch(f"/users/{user['id']}", json={"status": "active", "display_name": "Ada Lovelace"})
    data = owner.execute("SELECT data FROM log.events WHERE position = 2").fetchall()[0]["data"]
    assert data["changed"] == ["display_name", "status"]
    assert data["changes"] == {"status": {"old": "disabled", "new": "active"}}
    assert data["record"]["status"] == "active"
    assert data["record"].keys().isdisjoint({"email", "display_name", "attributes"})
