import unicodedata
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from command_api.app import create_app
from tests.calls import codes, create, errors
from tests.databases import MakeSettings
from tests.integration.identity.conftest import Visit
from tests.logins import EMAIL, PASSWORD, log_in, token_from, visitor
from tests.tokens import token_of

Owner = psycopg.Connection[dict[str, Any]]
METHODS = ["PUT", "PATCH"]
REFUSED = [
    ("", "password_too_short"),
    ("seven77", "password_too_short"),
    # seven characters, however many bytes or marks
    ("\N{KEY}" * 7, "password_too_short"),
    ("e\u0301" * 7, "password_too_short"),
    ("x" * 1025, "password_too_long"),
    ("12345678", "password_too_common"),
    ("password123", "password_too_common"),
    ("PassWord123", "password_too_common"),
    ("\uff50\uff41\uff53\uff53word123", "password_too_common"),
    (f"my {EMAIL} is it", "password_contains_email"),
    (EMAIL.upper(), "password_contains_email"),
    ("ada@EXAMPLE.com1", "password_contains_email"),
]
TAKEN = [
    "zebra-78",
    "        ",
    "a" * 1024,
    "\N{KEY}" * 8,
    "example.com",
    "ada at example",
    "nul\0inside",
    "correct horse battery staple",
    unicodedata.normalize("NFD", "schlüssel für zoë"),
]


def faults(answer: httpx.Response) -> list[tuple[str, str | None]]:
    return [(error["code"], error.get("pointer")) for error in errors(answer, 422)]


def events(owner: Owner) -> int:
    return owner.execute("SELECT count(*) FROM log.events").fetchall()[0]["count"]


@pytest.mark.parametrize(("password", "code"), REFUSED)
async def test_a_password_that_is_no_good_is_refused_wherever_it_is_set(
    admin: httpx.AsyncClient, visit: Visit, owner: Owner, password: str, code: str
) -> None:
    refusal = [(code, "#/password")]
    assert faults(await admin.post("/users", json={"email": EMAIL, "password": password})) == refusal
    user = await create(admin, EMAIL, password=PASSWORD)
    me = visit(token=await token_from(visit()))
    for method in METHODS:
        answer = await admin.request(method, f"/users/{user['id']}", json={"password": password})
        assert faults(answer) == refusal
        answer = await me.request(method, "/users/me", json={"password": password, "current_password": PASSWORD})
        assert faults(answer) == refusal
        # whoever reads the answer is not told the password again
        assert len(password) < 8 or password not in answer.text
    assert events(owner) == 1
    assert (await log_in(visit())).status_code == 200


@pytest.mark.parametrize("password", TAKEN)
async def test_any_other_password_is_taken_wherever_it_is_set(
    admin: httpx.AsyncClient, visit: Visit, password: str
) -> None:
    user = await create(admin, EMAIL, password=password)
    me = visit(token=await token_from(visit(), EMAIL, password))
    answer = await me.patch("/users/me", json={"password": PASSWORD, "current_password": password})
    assert answer.status_code == 200
    assert (await log_in(visit())).status_code == 200
    assert (await admin.patch(f"/users/{user['id']}", json={"password": password})).status_code == 200
    assert (await log_in(visit(), EMAIL, password)).status_code == 200
    assert (await log_in(visit())).status_code == 401


async def test_a_password_is_the_same_from_every_keyboard(admin: httpx.AsyncClient, visit: Visit) -> None:
    typed = "schlüssel für zoë"
    await create(admin, EMAIL, password=unicodedata.normalize("NFD", typed))
    assert (await log_in(visit(), password=unicodedata.normalize("NFC", typed))).status_code == 200
    assert (await log_in(visit(), password=unicodedata.normalize("NFD", typed))).status_code == 200
    # but not in other characters that look the same
    assert (await log_in(visit(), password=unicodedata.normalize("NFKC", "schlüssel\u00a0für zoë"))).status_code == 200
    assert (await log_in(visit(), password="schlüssel\u00a0für zoë")).status_code == 401
    assert (await log_in(visit(), password="Schlüssel für zoë")).status_code == 401


async def test_a_lone_surrogate_is_no_text(admin: httpx.AsyncClient) -> None:
    body = b'{"email": "ada@example.com", "password": "lone \\ud800 surrogate"}'
    answer = await admin.post("/users", content=body, headers={"Content-Type": "application/json"})
    assert codes(answer, 400) == ["malformed_json"]


@pytest.mark.parametrize("method", METHODS)
async def test_the_address_is_the_one_that_the_user_will_have(
    admin: httpx.AsyncClient, visit: Visit, owner: Owner, method: str
) -> None:
    user = await create(admin, "Grace.Hopper@Example.com", password=PASSWORD)
    path = f"/users/{user['id']}"
    for body in (
        # as stored, when the change does not name it
        {"password": "xx grace.hopper@example.com"},
        {"password": "GRACE.HOPPER"},
        {"password": "xx grace.hopper@example.com", "display_name": "Grace"},
        # as it is to be, when it does
        {"password": "amazing@navy.example", "email": "Amazing@navy.example"},
        {"password": "amazing-grace", "email": "amazing-grace@navy.example"},
    ):
        assert faults(await admin.request(method, path, json=body)) == [("password_contains_email", "#/password")]
    assert events(owner) == 1
    body = {"password": "xx grace.hopper@example.com", "email": "amazing@navy.example"}
    assert (await admin.request(method, path, json=body)).status_code == 200
    assert (await log_in(visit(), "amazing@navy.example", "xx grace.hopper@example.com")).status_code == 200


async def test_the_least_length_is_a_setting(make_settings: MakeSettings) -> None:
    app: FastAPI = create_app(make_settings("muster_command", password_min_length=15))
    async with app.router.lifespan_context(app):
        admin = visitor(app, token=token_of())
        answer = await admin.post("/users", json={"email": EMAIL, "password": "fourteen chars"})
        assert [error["detail"] for error in errors(answer, 422)] == ["must have at least 15 characters"]
        await create(admin, EMAIL, password="fifteen  chars!")


async def test_an_older_password_still_logs_in_when_the_rules_have_changed(
    admin: httpx.AsyncClient, make_settings: MakeSettings
) -> None:
    await create(admin, EMAIL, password="zebra-78")
    app = create_app(make_settings("muster_command", password_min_length=15))
    async with app.router.lifespan_context(app):
        assert (await log_in(visitor(app), password="zebra-78")).status_code == 200


@pytest.mark.parametrize(
    "body",
    [{"password": 12345678}, {"password": ["correct horse"]}, {"password": {"a": 1}}, {"password": True}],
)
async def test_what_is_no_text_is_no_password(admin: httpx.AsyncClient, owner: Owner, body: dict[str, Any]) -> None:
    assert (await admin.post("/users", json={"email": EMAIL, **body})).status_code == 422
    assert events(owner) == 0


async def test_a_password_cannot_be_taken_away(admin: httpx.AsyncClient, visit: Visit) -> None:
    user = await create(admin, EMAIL, password=PASSWORD)
    for field in ("password", "password_hash"):
        for method in METHODS:
            answer = await admin.request(method, f"/users/{user['id']}", json={field: None})
            assert faults(answer) == [("not_removable", f"#/{field}")]
    assert (await log_in(visit())).status_code == 200
