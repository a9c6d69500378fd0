from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from events.user import Status, UserId
from events.wire import user_to_wire
from identity.roles import Scope
from query_api.app import create_app as create_query_app
from tests.calls import codes, create, errors
from tests.databases import MakeSettings
from tests.integration.identity.conftest import Visit
from tests.logins import EMAIL, PASSWORD, log_in, oauth_error, token_from, until_void, visitor
from tests.people import ADA, ADA_ID, LATER
from tests.plain_http import PLAIN
from tests.processes import Stack
from tests.read_model import ReadModel
from tests.tokens import ADMIN_ID, authorized, token_of

Owner = psycopg.Connection[dict[str, Any]]
SELF = "/users/me"
METHODS = ["PUT", "PATCH"]
NEW = "a-better-phrase-than-before"
CHANGE = {"password": NEW, "current_password": PASSWORD}
WRONG = {"password": NEW, "current_password": "not my password"}


@pytest.fixture
async def ada(admin: httpx.AsyncClient) -> dict[str, Any]:
    """A user like any other, with attributes."""
    return await create(admin, EMAIL, display_name="Ada", attributes={"team": "engines", "desk": 7}, password=PASSWORD)


@pytest.fixture
async def me(visit: Visit, ada: dict[str, Any]) -> httpx.AsyncClient:
    """Ada herself, logged in."""
    return visit(token=await token_from(visit(), ada["email"]))


@pytest.fixture
async def query_app(make_settings: MakeSettings) -> AsyncIterator[FastAPI]:
    app = create_query_app(make_settings("muster_query"))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def model(owner: Owner, make_settings: MakeSettings) -> ReadModel:
    return ReadModel(owner, make_settings("muster_query").events_topic)


def events(owner: Owner) -> int:
    return owner.execute("SELECT count(*) FROM log.events").fetchall()[0]["count"]


def stored(owner: Owner) -> str:
    return owner.execute("SELECT password_hash FROM identity.credentials").fetchall()[0]["password_hash"]


def token_in(client: httpx.AsyncClient) -> str:
    return client.headers["authorization"].removeprefix("Bearer ")


async def test_one_reads_oneself(query_app: FastAPI, model: ReadModel) -> None:
    model.hold([ADA, replace(ADA, id=UserId(UUID(int=5)), email="grace@example.com", roles=())])
    reader = visitor(query_app, token=token_of(ADA_ID, frozenset({Scope.SELF})))
    answer = await reader.get(SELF)
    assert answer.status_code == 200
    expected = user_to_wire(ADA)
    del expected["deleted_at"]
    assert answer.json() == expected
    assert (answer.headers["etag"], answer.headers["event-position"]) == ('"1"', "7")
    assert answer.headers["cache-control"] == "no-cache"
    assert (await reader.get(SELF, headers={"If-None-Match": '"1"'})).status_code == 304
    # and nobody else
    for path in ("/users", f"/users/{ADA_ID}", f"/users/{UUID(int=5)}"):
        assert codes(await reader.get(path), 403) == ["insufficient_scope"]


async def test_who_is_nobody_is_told_so(query_app: FastAPI, model: ReadModel) -> None:
    model.hold([replace(ADA, version=2, updated_at=LATER, deleted_at=LATER)])
    assert codes(await visitor(query_app, token=token_of(ADA_ID)).get(SELF), 410) == ["user_deleted"]
    assert codes(await visitor(query_app, token=token_of()).get(SELF), 404) == ["user_not_found"]
    assert codes(await visitor(query_app).get(SELF), 401) == ["unauthenticated"]


async def test_a_fresh_answer_is_waited_for(query_app: FastAPI, model: ReadModel) -> None:
    model.hold([ADA])
    reader = visitor(query_app, token=token_of(ADA_ID))
    answer = await reader.get(SELF, headers={"Min-Position": "9"})
    assert codes(answer, 503) == ["not_fresh_yet"]
    for partition in range(3):
        model.stand(partition, offset=9, position=9)
    answer = await reader.get(SELF, headers={"Min-Position": "9", "Prefer": "wait=5"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=5")


@pytest.mark.parametrize("api", ["command", "query"])
async def test_it_takes_the_scope_self(visit: Visit, query_app: FastAPI, api: str) -> None:
    token = authorized(ADA_ID, scopes=frozenset())
    clients = {"command": visit(), "query": visitor(query_app)}
    answer = await clients[api].request("PATCH" if api == "command" else "GET", SELF, json={}, headers=token)
    assert codes(answer, 403) == ["insufficient_scope"]
    assert answer.headers["www-authenticate"].endswith('error="insufficient_scope", scope="self"')


async def test_a_service_has_no_self(query_app: FastAPI) -> None:
    service = visitor(query_app, token=token_of(ADA_ID, frozenset(), client_id=str(ADA_ID)))
    assert codes(await service.get(SELF), 403) == ["insufficient_scope"]


@pytest.mark.parametrize("method", METHODS)
async def test_one_changes_ones_own_name_address_and_attributes(
    me: httpx.AsyncClient, visit: Visit, owner: Owner, ada: dict[str, Any], method: str
) -> None:
    body = {"display_name": "Countess", "email": "Lovelace@Example.com", "attributes": {"desk": None, "tea": True}}
    answer = await me.request(method, SELF, json=body)
    assert answer.status_code == 200
    record = answer.json()
    assert record["id"] == ada["id"]
    assert record["changed"] == ["attributes", "display_name", "email"]
    assert (record["display_name"], record["email"]) == ("Countess", "Lovelace@Example.com")
    merged = {"team": "engines", "tea": True} if method == "PATCH" else {"desk": None, "tea": True}
    assert record["attributes"] == merged
    assert (answer.headers["etag"], answer.headers["event-position"]) == ('"2"', "2")
    # nothing of this ends a session
    assert (await me.get("/sessions")).status_code == 200
    assert (await log_in(visit(), "lovelace@example.com")).status_code == 200
    assert (await log_in(visit())).status_code == 401
    (row,) = owner.execute("SELECT metadata -> 'actor' AS actor FROM log.events WHERE position = 2").fetchall()
    session = row["actor"].pop("session")
    assert session in {one["id"] for one in (await me.get("/sessions")).json()["sessions"]}
    assert row["actor"] == {"subject": ada["id"], "kind": "user"}


@pytest.mark.parametrize("method", METHODS)
async def test_what_would_change_nothing_changes_nothing(me: httpx.AsyncClient, owner: Owner, method: str) -> None:
    for body in ({}, {"display_name": "Ada"}, {"email": EMAIL}):
        answer = await me.request(method, SELF, json=body)
        assert (answer.status_code, answer.json()["changed"]) == (200, [])
    assert events(owner) == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"roles": ["admin"]}, ["#/roles"]),
        ({"roles": []}, ["#/roles"]),
        ({"roles": None}, ["#/roles"]),
        ({"roles": {"x": ["y"]}}, ["#/roles"]),
        ({"status": "disabled"}, ["#/status"]),
        ({"status": "active"}, ["#/status"]),
        ({"status": None}, ["#/status"]),
        ({"display_name": "Root", "status": 1, "roles": ["admin"]}, ["#/roles", "#/status"]),
        ({**CHANGE, "roles": ["admin"]}, ["#/roles"]),
    ],
)
async def test_ones_roles_and_status_are_for_others(
    me: httpx.AsyncClient, visit: Visit, owner: Owner, method: str, body: dict[str, Any], pointers: list[str]
) -> None:
    answer = await me.request(method, SELF, json=body)
    assert [(error["code"], error["pointer"]) for error in errors(answer, 403)] == [
        ("not_yours", pointer) for pointer in pointers
    ]
    assert events(owner) == 1
    assert (await log_in(visit())).json()["scope"] == "self"


@pytest.mark.parametrize("roles", [["admin"], ["auditor", "operator"]])
async def test_not_even_who_may_write_users(visit: Visit, admin: httpx.AsyncClient, roles: list[str]) -> None:
    await create(admin, EMAIL, password=PASSWORD, roles=roles)
    me = visit(token=await token_from(visit()))
    assert codes(await me.patch(SELF, json={"roles": []}), 403) == ["not_yours"]


@pytest.mark.parametrize("method", METHODS)
async def test_what_is_no_field_of_ones_own_is_refused(me: httpx.AsyncClient, owner: Owner, method: str) -> None:
    for field in ("id", "version", "password_hash", "created_at", "deleted_at", "user_id", "x"):
        found = errors(await me.request(method, SELF, json={field: "x"}), 422)
        assert [error["pointer"] for error in found] == [f"#/{field}"]
    wrong: list[Any] = [{"email": None}, {"email": "no address"}, {"display_name": ""}, {"attributes": []}, [], "x"]
    for body in wrong:
        assert (await me.request(method, SELF, json=body)).status_code == 422
    assert events(owner) == 1


@pytest.mark.parametrize("method", METHODS)
async def test_an_address_that_is_anothers_is_refused(
    me: httpx.AsyncClient, admin: httpx.AsyncClient, owner: Owner, method: str
) -> None:
    await create(admin, "grace@example.com")
    answer = await me.request(method, SELF, json={"email": "GRACE@example.com"})
    assert codes(answer, 409) == ["email_taken"]
    assert events(owner) == 2


@pytest.mark.parametrize("method", METHODS)
async def test_a_new_password_ends_every_session(
    me: httpx.AsyncClient, visit: Visit, owner: Owner, method: str
) -> None:
    other = (await log_in(visit("10.0.0.2"))).json()
    before = stored(owner)
    answer = await me.request(method, SELF, json=CHANGE)
    assert answer.status_code == 200
    assert answer.json()["changed"] == ["password_changed_at"]
    assert "password" not in answer.json()
    assert stored(owner) != before
    for token in (token_in(me), other["access_token"]):
        await until_void(visit(token=token))
    refresh = {"refresh_token": other["refresh_token"]}
    assert oauth_error(await visit().post("/refresh", data=refresh), 401) == "invalid_grant"
    assert oauth_error(await log_in(visit()), 401) == "invalid_grant"
    assert (await log_in(visit(), password=NEW)).status_code == 200


@pytest.mark.parametrize("method", METHODS)
async def test_a_new_password_needs_the_current_one(
    me: httpx.AsyncClient, visit: Visit, owner: Owner, method: str
) -> None:
    before = stored(owner)
    for body in (
        {"password": NEW},
        {"password": NEW, "current_password": None},
        {"password": NEW, "display_name": "x"},
    ):
        assert codes(await me.request(method, SELF, json=body), 422) == ["current_password_missing"]
    for body in ({"password": NEW, "current_password": 1}, {"password": None, "current_password": PASSWORD}):
        assert (await me.request(method, SELF, json=body)).status_code == 422
    for wrong in ("not my password", "", PASSWORD + " ", PASSWORD.upper()):
        answer = await me.request(method, SELF, json={"password": NEW, "current_password": wrong, "display_name": "x"})
        assert [(error["code"], error["pointer"]) for error in errors(answer, 403)] == [
            ("wrong_password", "#/current_password")
        ]
    assert (stored(owner), events(owner)) == (before, 1)
    assert (await log_in(visit())).status_code == 200
    assert (await me.get("/sessions")).status_code == 200


async def test_the_current_password_alone_changes_nothing(me: httpx.AsyncClient, owner: Owner) -> None:
    for current in (PASSWORD, "not my password"):
        answer = await me.patch(SELF, json={"current_password": current})
        assert (answer.status_code, answer.json()["changed"]) == (200, [])
    assert events(owner) == 1


async def test_whoever_found_a_token_cannot_guess_the_password_with_it(
    me: httpx.AsyncClient, visit: Visit, owner: Owner
) -> None:
    for _ in range(5):
        assert codes(await me.patch(SELF, json=WRONG), 403) == ["wrong_password"]
    for body in (WRONG, CHANGE):
        answer = await me.patch(SELF, json=body)
        assert codes(answer, 429) == ["too_many_attempts"]
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["ratelimit"] == '"login";r=0;t=1'
    # what needs no password goes on, and so does the login of who knows it, and the change from elsewhere
    assert (await me.patch(SELF, json={"display_name": "Countess"})).status_code == 200
    assert (await log_in(visit())).status_code == 200
    owner.execute("UPDATE identity.guesses SET next_at = next_at - interval '1 second'")
    assert (await me.patch(SELF, json=CHANGE)).status_code == 200


async def test_failed_logins_do_not_keep_anybody_from_a_new_password(me: httpx.AsyncClient, visit: Visit) -> None:
    for _ in range(6):
        answer = await log_in(visit(), password="wrong-password")
    assert answer.status_code == 429  # pyright: ignore[reportPossiblyUnboundVariable]
    assert (await me.patch(SELF, json=CHANGE)).status_code == 200


async def test_a_new_password_is_held_to_the_rules(me: httpx.AsyncClient, owner: Owner) -> None:
    for password, code in (
        ("short", "password_too_short"),
        ("x" * 1025, "password_too_long"),
        ("Password123", "password_too_common"),
        (f"xx{EMAIL}xx", "password_contains_email"),
    ):
        found = errors(await me.patch(SELF, json={"password": password, "current_password": PASSWORD}), 422)
        assert [(error["code"], error["pointer"]) for error in found] == [(code, "#/password")]
    # of the address that comes with it
    body = CHANGE | {"password": "lovelace@example.com!", "email": "lovelace@example.com"}
    assert codes(await me.patch(SELF, json=body), 422) == ["password_contains_email"]
    assert events(owner) == 1
    assert (await me.get("/sessions")).status_code == 200


async def test_who_has_no_password_cannot_set_one(visit: Visit, admin: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(admin, EMAIL)
    me = visit(token=token_of(UUID(user["id"]), frozenset({Scope.SELF})))
    for current in ("", "x", PASSWORD):
        answer = await me.patch(SELF, json={"password": NEW, "current_password": current})
        assert codes(answer, 403) == ["wrong_password"]
    assert owner.execute("SELECT * FROM identity.credentials").fetchall() == []


@pytest.mark.parametrize("method", METHODS)
async def test_only_the_version_that_was_read_is_changed(me: httpx.AsyncClient, owner: Owner, method: str) -> None:
    body = {"display_name": "Countess"}
    for stale in ('"2"', 'W/"1"', '"x"'):
        answer = await me.request(method, SELF, json=body, headers={"If-Match": stale})
        assert codes(answer, 412) == ["version_mismatch"]
        assert answer.headers["etag"] == '"1"'
    assert codes(await me.request(method, SELF, json=body, headers={"If-Match": "1"}), 400) == ["malformed_etag"]
    answer = await me.request(method, SELF, json=CHANGE, headers={"If-Match": '"7"'})
    assert codes(answer, 412) == ["version_mismatch"]
    assert (events(owner), (await me.get("/sessions")).status_code) == (1, 200)
    answer = await me.request(method, SELF, json=body, headers={"If-Match": '"1"'})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')


@pytest.mark.parametrize("method", METHODS)
async def test_a_repeated_request_has_one_effect(
    me: httpx.AsyncClient, admin: httpx.AsyncClient, owner: Owner, ada: dict[str, Any], method: str
) -> None:
    body, key = {"display_name": "Countess"}, {"Idempotency-Key": "key-1"}
    first = await me.request(method, SELF, json=body, headers=key)
    await admin.patch(f"/users/{ada['id']}", json={"display_name": "Ada again"})
    again = await me.request(method, SELF, json=body, headers=key)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["idempotency-replayed"] == "true"
    assert events(owner) == 3
    others: list[dict[str, Any]] = [{"display_name": "Other"}, {"display_name": "Countess", "attributes": {}}]
    for other in others:
        answer = await me.request(method, SELF, json=other, headers=key)
        assert codes(answer, 422) == ["idempotency_key_reused"]
    # a key is its caller's own
    assert (await admin.request(method, f"/users/{ada['id']}", json=body, headers=key)).status_code == 200


async def test_a_repeat_is_not_for_the_session_that_the_first_one_ended(me: httpx.AsyncClient, owner: Owner) -> None:
    key = {"Idempotency-Key": "key-1"}
    assert (await me.patch(SELF, json=CHANGE, headers=key)).status_code == 200
    await until_void(me)
    assert codes(await me.patch(SELF, json=CHANGE, headers=key), 401) == ["invalid_token"]
    assert events(owner) == 2


@pytest.mark.parametrize("method", METHODS)
async def test_a_repeated_new_password_has_its_answer_after_the_next_login(
    me: httpx.AsyncClient, visit: Visit, owner: Owner, method: str
) -> None:
    key = {"Idempotency-Key": "key-1"}
    first = await me.request(method, SELF, json=CHANGE, headers=key)
    me = visit(token=await token_from(visit(), password=NEW))
    # the current password that it names is not the current one any more
    again = await me.request(method, SELF, json=CHANGE, headers=key)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert (await me.get("/sessions")).status_code == 200
    # no other request learns from the key what the password was
    for other in (CHANGE | {"current_password": "not my password"}, CHANGE | {"password": "another new phrase"}):
        assert codes(await me.request(method, SELF, json=other, headers=key), 422) == ["idempotency_key_reused"]
    assert events(owner) == 2
    # nor was any of this a guess
    assert owner.execute("SELECT max(failures) AS failures FROM identity.guesses").fetchall() == [{"failures": 0}]


async def test_a_disabled_or_deleted_user_changes_nothing(
    me: httpx.AsyncClient, visit: Visit, admin: httpx.AsyncClient, owner: Owner, ada: dict[str, Any]
) -> None:
    path = f"/users/{ada['id']}"
    await admin.patch(path, json={"status": Status.DISABLED.value})
    await until_void(me)
    assert codes(await me.patch(SELF, json={"display_name": "x"}), 401) == ["invalid_token"]
    await admin.patch(path, json={"status": Status.ACTIVE.value})
    me = visit(token=await token_from(visit()))
    await admin.delete(path)
    await until_void(me)
    assert codes(await me.patch(SELF, json={"display_name": "x"}), 401) == ["invalid_token"]
    assert events(owner) == 4


async def test_who_is_not_in_the_log_cannot_be_changed(visit: Visit, owner: Owner) -> None:
    nobody = visit(token=token_of(ADMIN_ID))
    assert codes(await nobody.patch(SELF, json={"display_name": "x"}), 404) == ["user_not_found"]
    assert codes(await nobody.patch(SELF, json=CHANGE), 403) == ["wrong_password"]
    assert events(owner) == 0


def test_one_reads_what_one_wrote(stack: Stack) -> None:
    with stack.command.client() as admin:
        assert admin.post("/users", json={"email": EMAIL, "password": PASSWORD}).status_code == 201
    fields = {"username": EMAIL, "password": PASSWORD}
    token = httpx.post(f"{stack.command.url}/login", data=fields, verify=PLAIN, trust_env=False).json()["access_token"]
    mine = {"Authorization": f"Bearer {token}"}
    changed = httpx.patch(f"{stack.command.url}{SELF}", json={"display_name": "Countess"}, headers=mine)
    assert changed.status_code == 200
    fresh = mine | {"Min-Position": changed.headers["event-position"], "Prefer": "wait=20"}
    read = httpx.get(f"{stack.query.url}{SELF}", headers=fresh, timeout=30, verify=PLAIN, trust_env=False)
    assert read.status_code == 200
    assert read.json() == {name: value for name, value in changed.json().items() if name != "changed"}
    assert read.headers["etag"] == changed.headers["etag"] == '"2"'
