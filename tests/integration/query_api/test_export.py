"""GET /users/me/export and /users/{id}/export: all that is held of a person, and nothing of anybody else."""

from uuid import UUID

import httpx
import pytest

from identity.roles import Scope
from query_api.export import AT_ONCE, ExportBody
from tests.calls import codes, create
from tests.histories import History
from tests.logins import log_in
from tests.tokens import ADMIN_ID, authorized

PASSWORD = "correct horse battery"


async def test_a_person_gets_their_record_history_and_logins(
    commands: httpx.AsyncClient, queries: httpx.AsyncClient
) -> None:
    user = await create(commands, "ada@example.com", password=PASSWORD, display_name="Ada")
    path = f"/users/{user['id']}"
    await commands.patch(path, json={"attributes": {"team": "engines"}}, headers={"Reason": "moved"})
    headers = {"Authorization": "", "User-Agent": "a browser"}
    token = (await log_in(commands, "ada@example.com", PASSWORD)).json()["access_token"]
    own = {"Authorization": f"Bearer {token}"}
    assert (
        await commands.patch("/users/me", json={"display_name": "Ada L."}, headers=headers | own)
    ).status_code == 200

    answer = await queries.get("/users/me/export", headers=own)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"] == f'attachment; filename="user-{user["id"]}.json"'
    assert answer.headers["cache-control"] == "no-store"
    ExportBody.model_validate_json(answer.content)
    document = answer.json()
    assert (document["user_id"], document["position"]) == (user["id"], 3)
    assert (document["record"]["display_name"], document["record"]["deleted_at"]) == ("Ada L.", None)
    assert document["password_set_at"] is not None
    (session,) = document["sessions"]
    assert session["created_at"]
    assert session["user_agent"]
    assert [event["type"] for event in document["events"]] == ["UserCreated", "UserUpdated", "UserUpdated"]
    assert document["events"][0]["changes"]["email"]["new"] == "ada@example.com"
    assert document["events"][1]["reason"] == "moved"
    # of the administrator the id, and no session; of oneself both
    assert document["events"][1]["actor"] == {"kind": "user", "subject": str(ADMIN_ID), "session": None}
    assert document["events"][2]["actor"] == {"kind": "user", "subject": user["id"], "session": session["id"]}
    assert b"argon2" not in answer.content
    assert b"hash" not in answer.content
    by_id = (await queries.get(f"{path}/export")).json()
    assert by_id | {"exported_at": None} == document | {"exported_at": None}


async def test_an_operators_name_is_not_told(queries: httpx.AsyncClient, history: History) -> None:
    history.create([1])
    (event,) = (await queries.get(f"/users/{history.users[1].id}/export")).json()["events"]
    assert event["actor"] == {"kind": "operator", "subject": None, "session": None}


@pytest.mark.parametrize("changes", [0, 1, AT_ONCE - 2, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1])
async def test_every_event_is_in_it_once(queries: httpx.AsyncClient, history: History, changes: int) -> None:
    history.create([1])
    for number in range(changes):
        history.change([1], display_name=f"Name {number}")
    document = (await queries.get(f"/users/{history.users[1].id}/export")).json()
    assert [event["version"] for event in document["events"]] == list(range(1, changes + 2))


async def test_a_deleted_users_data_is_there_until_they_are_erased(
    commands: httpx.AsyncClient, queries: httpx.AsyncClient
) -> None:
    user = await create(commands, "ada@example.com")
    await commands.delete(f"/users/{user['id']}")
    document = (await queries.get(f"/users/{user['id']}/export")).json()
    assert document["record"]["email"] == "ada@example.com"
    assert document["record"]["deleted_at"] is not None


async def test_what_cannot_be_read_is_told_as_such(queries: httpx.AsyncClient, history: History) -> None:
    history.create([1])
    history.damage(1, 1)
    document = (await queries.get(f"/users/{history.users[1].id}/export")).json()
    assert document["record"] is None
    assert "does not open" in document["events"][0]["unreadable"]


async def test_who_may_export_whom(commands: httpx.AsyncClient, queries: httpx.AsyncClient) -> None:
    user = await create(commands)
    path = f"/users/{user['id']}/export"
    for scopes in ({Scope.SELF}, {Scope.USERS_READ}, {Scope.EVENTS_READ}):
        answer = await queries.get(path, headers=authorized(UUID(user["id"]), frozenset(scopes)))
        assert codes(answer, 403) == ["insufficient_scope"]
    both = frozenset({Scope.USERS_READ, Scope.EVENTS_READ})
    assert (await queries.get(path, headers=authorized(scopes=both))).status_code == 200
    assert codes(await queries.get("/users/me/export", headers=authorized(scopes=both)), 403) == ["insufficient_scope"]
    # a user of whom the log has nothing
    assert codes(await queries.get("/users/me/export"), 404) == ["user_not_found"]
