from typing import Any

import httpx
import pytest

from tests.calls import create, errors
from tests.people import ADA_ID


def deep(levels: int) -> dict[str, Any]:
    return {"x": deep(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"email": None}, "#/email", "string_type"),
        ({"email": 7}, "#/email", "string_type"),
        ({"email": ""}, "#/email", "email"),
        ({"email": "ada"}, "#/email", "email"),
        ({"email": "ada@"}, "#/email", "email"),
        ({"email": "ada@localhost"}, "#/email", "email"),
        ({"email": "a b@example.com"}, "#/email", "email"),
        ({"email": "ada@example..com"}, "#/email", "email"),
        ({"email": "Ada <ada@example.com>"}, "#/email", "email"),
        ({"email": "ada\u0000@example.com"}, "#/email", "email"),
        ({"email": "a" * 250 + "@example.com"}, "#/email", "string_too_long"),
        ({"display_name": ""}, "#/display_name", "string_too_short"),
        ({"display_name": " \u00a0\u200b"}, "#/display_name", "display_name"),
        ({"display_name": "Ada\u0000"}, "#/display_name", "display_name"),
        ({"display_name": "Ada\nLovelace"}, "#/display_name", "display_name"),
        ({"display_name": "Ada\u2028"}, "#/display_name", "display_name"),
        ({"display_name": "\u0085Ada"}, "#/display_name", "display_name"),
        ({"display_name": "x" * 201}, "#/display_name", "string_too_long"),
        ({"display_name": ["Ada"]}, "#/display_name", "string_type"),
        ({"status": "asleep"}, "#/status", "enum"),
        ({"status": None}, "#/status", "enum"),
        ({"roles": "user"}, "#/roles", "list_type"),
        ({"roles": ["user", "Admin"]}, "#/roles/1", "string_pattern_mismatch"),
        ({"roles": ["user\n"]}, "#/roles/0", "string_pattern_mismatch"),
        ({"roles": ["a" * 33]}, "#/roles/0", "string_pattern_mismatch"),
        ({"roles": [f"r{n}" for n in range(33)]}, "#/roles", "too_long"),
        ({"attributes": []}, "#/attributes", "dict_type"),
        ({"attributes": {"x": "a" * 8192}}, "#/attributes", "too_large"),
        ({"attributes": {"x": "é" * 4096}}, "#/attributes", "too_large"),
        ({"attributes": deep(33)}, "#/attributes", "too_deep"),
        ({"attributes": {"x": ["\u0000"]}}, "#/attributes", "nul"),
        ({"attributes": {"x\u0000": 1}}, "#/attributes", "nul"),
        ({"password": "short12"}, "#/password", "password_too_short"),
        ({"password": "x" * 1025}, "#/password", "password_too_long"),
        ({"password": 12345678}, "#/password", "string_type"),
        ({"password": ["hunter2hunter2"]}, "#/password", "string_type"),
        ({"id": "0192d3c8-5b0e-7c31-9d5e-0a3f6f6f2b11"}, "#/id", "extra_forbidden"),
        ({"version": 1}, "#/version", "extra_forbidden"),
        ({"passwörd/~": 1}, "#/passw%C3%B6rd~1~0", "extra_forbidden"),
    ],
)
async def test_a_wrong_field_is_pointed_at(
    commands: httpx.AsyncClient, fields: dict[str, Any], pointer: str, code: str
) -> None:
    answer = await commands.post("/users", json={"email": "ada@example.com", **fields})
    assert [(error["pointer"], error["code"]) for error in errors(answer, 422)] == [(pointer, code)]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"email": None}, "#/email", "not_removable"),
        ({"email": "ada"}, "#/email", "email"),
        ({"status": None}, "#/status", "not_removable"),
        ({"password": None}, "#/password", "not_removable"),
        ({"password": "short12"}, "#/password", "password_too_short"),
        ({"display_name": " "}, "#/display_name", "display_name"),
        ({"roles": ["Admin"]}, "#/roles/0", "string_pattern_mismatch"),
        ({"attributes": {"x": "a" * 8192}}, "#/attributes", "too_large"),
        ({"attributes": 1}, "#/attributes", "dict_type"),
        ({"created_at": "2026-01-01T00:00:00Z"}, "#/created_at", "extra_forbidden"),
    ],
)
async def test_a_wrong_change_is_pointed_at(
    commands: httpx.AsyncClient, method: str, fields: dict[str, Any], pointer: str, code: str
) -> None:
    answer = await commands.request(method, f"/users/{ADA_ID}", json=fields)
    assert [(error["pointer"], error["code"]) for error in errors(answer, 422)] == [(pointer, code)]


async def test_all_faults_are_told_at_once(commands: httpx.AsyncClient) -> None:
    answer = await commands.post("/users", json={"status": "asleep", "roles": [1], "nick": "ada"})
    assert {error["pointer"] for error in errors(answer, 422)} == {"#/email", "#/status", "#/roles/0", "#/nick"}


async def test_attributes_that_grow_too_large_by_merging_are_refused(commands: httpx.AsyncClient) -> None:
    user = await create(commands, attributes={"a": "x" * 5000})
    answer = await commands.patch(f"/users/{user['id']}", json={"attributes": {"b": "x" * 5000}})
    assert [(error["pointer"], error["code"]) for error in errors(answer, 422)] == [("#/attributes", "too_large")]


@pytest.mark.parametrize("user_id", ["7", "me", "0192d3c8-5b0e-7c31-9d5e-0a3f6f6f2b1", "%00"])
async def test_an_id_that_is_none_is_a_wrong_parameter(commands: httpx.AsyncClient, user_id: str) -> None:
    answer = await commands.delete(f"/users/{user_id}")
    assert [error["parameter"] for error in errors(answer, 422)] == ["id"]


async def test_32_levels_and_8_kib_of_attributes_fit(commands: httpx.AsyncClient) -> None:
    attributes = {"deep": deep(30), "wide": ""}
    attributes["wide"] = "x" * (8192 - len(str(attributes).replace(" ", "")))
    assert (await create(commands, attributes=attributes))["attributes"] == attributes
