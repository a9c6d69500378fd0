"""Many users in one request: a result for each line, by the rules of single creations."""

from collections.abc import AsyncIterator
from typing import Any

import bcrypt
import httpx
import orjson
import psycopg
import pytest

from command_api.app import create_app
from command_api.import_routes import LOOK_EVERY
from identity.roles import Scope
from tests.calls import codes, create
from tests.databases import MakeSettings
from tests.logins import EMAIL, log_in, token_from, until_void, visitor
from tests.tokens import ADMIN_ID, authorized

Owner = psycopg.Connection[dict[str, Any]]
Record = dict[str, Any]

NDJSON = {"Content-Type": "application/x-ndjson"}
PASSWORD = "a lighthouse in the fog"


def ndjson(*records: object) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def users(count: int) -> list[Record]:
    return [{"email": f"user{number}@example.com", "display_name": f"User {number}"} for number in range(count)]


async def send(commands: httpx.AsyncClient, content: Any, **headers: str) -> list[Record]:  # noqa: ANN401 - as httpx's
    answer = await commands.post("/users/import", content=content, headers={**NDJSON, **headers})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    results = [orjson.loads(line) for line in answer.content.splitlines()]
    assert int(answer.headers["lines-refused"]) == sum("errors" in result for result in results)
    assert int(answer.headers["lines-accepted"]) == len(results) - int(answer.headers["lines-refused"])
    return results


def events(owner: Owner) -> list[Record]:
    return owner.execute("SELECT * FROM log.events ORDER BY position").fetchall()


async def test_whoever_is_logged_out_meanwhile_begins_no_more(
    make_settings: MakeSettings, commands: httpx.AsyncClient, owner: Owner
) -> None:
    app = create_app(make_settings("muster_command"))
    async with app.router.lifespan_context(app):
        await create(commands, EMAIL, password=PASSWORD, roles=["admin"])
        me = visitor(app, token=await token_from(visitor(app), password=PASSWORD))

        async def content() -> AsyncIterator[bytes]:
            yield ndjson(*users(1200)[:300])
            assert (await me.post("/logout")).status_code == 204
            await until_void(me)
            yield ndjson(*users(1200)[300:])

        answer = await me.post("/users/import", content=content(), headers=NDJSON)
    assert answer.status_code == 401
    # what is begun is done when that is told, and stays so
    imported = len(events(owner)) - 1
    assert 300 <= imported <= 300 + LOOK_EVERY


async def test_each_line_is_a_creation_like_any_other(commands: httpx.AsyncClient, owner: Owner) -> None:
    results = await send(commands, ndjson(*users(600)), Reason="from the old directory")
    assert [(result["line"], result["status"], result["version"]) for result in results] == [
        (line, 201, 1) for line in range(1, 601)
    ]
    found = events(owner)
    assert {str(event["user_id"]): event["position"] for event in found} == {
        result["id"]: result["position"] for result in results
    }
    assert {event["type"] for event in found} == {"UserCreated"}
    assert {event["metadata"]["reason"] for event in found} == {"from the old directory"}
    assert {event["metadata"]["actor"]["subject"] for event in found} == {str(ADMIN_ID)}
    assert len({event["metadata"]["request_id"] for event in found}) == 1


async def test_a_refused_line_stops_no_other(commands: httpx.AsyncClient, owner: Owner) -> None:
    await create(commands, "taken@example.com")
    lines = [
        b'{"email": "one@example.com"}',
        b'{"email": "nobody"}',
        b"{not json}",
        b"",
        b'{"email": "taken@example.com"}',
        b'{"email": "two@example.com", "password": "short"}',
        b'{"email": "three@example.com", "shoe_size": 42}',
        b'{"email": "four@example.com", "password_hash": "md5"}',
        b'["five@example.com"]',
        b'{"email": "ONE@example.com"}',
        b'{"email": "last@example.com"}',
    ]
    results = await send(commands, b"\n".join(lines))
    told = {
        result["line"]: (
            result["status"],
            [(error["code"], error.get("pointer")) for error in result.get("errors", [])],
        )
        for result in results
    }
    assert told == {
        1: (201, []),
        2: (422, [("email", "#/email")]),
        3: (400, [("malformed_json", "#")]),
        5: (409, [("email_taken", "#/email")]),
        6: (422, [("password_too_short", "#/password")]),
        7: (422, [("extra_forbidden", "#/shoe_size")]),
        8: (422, [("unusable_hash", "#/password_hash")]),
        9: (422, [("model_type", "#")]),
        10: (409, [("email_taken", "#/email")]),
        11: (201, []),
    }
    assert len(events(owner)) == 3


async def test_passwords_and_hashes_log_in(commands: httpx.AsyncClient) -> None:
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    records = [{"email": f"user{number}@example.com", "password": PASSWORD} for number in range(40)]
    records.append({"email": "old@example.com", "password_hash": hashed})
    results = await send(commands, ndjson(*records))
    assert {result["status"] for result in results} == {201}
    for email in ("user0@example.com", "user39@example.com", "old@example.com"):
        assert (await log_in(commands, email, PASSWORD)).status_code == 200


async def test_the_same_file_with_the_same_key_takes_effect_once(commands: httpx.AsyncClient, owner: Owner) -> None:
    half, whole = ndjson(*users(300)[:150]), ndjson(*users(300))
    first = await send(commands, half, **{"Idempotency-Key": "file-1"})
    again = await send(commands, whole, **{"Idempotency-Key": "file-1"})
    assert [result["status"] for result in again] == [200] * 150 + [201] * 150
    assert [result["id"] for result in again[:150]] == [result["id"] for result in first]
    assert len(events(owner)) == 300
    other = await send(commands, ndjson({"email": "another@example.com"}), **{"Idempotency-Key": "file-1"})
    assert [error["code"] for error in other[0]["errors"]] == ["idempotency_key_reused"]
    assert len(events(owner)) == 300


async def test_a_check_writes_nothing(commands: httpx.AsyncClient, owner: Owner) -> None:
    content = ndjson({"email": "one@example.com"}, {"email": "nobody"}, {"email": "two@example.com", "password": "x"})
    answer = await commands.post("/users/import?check=true", content=content, headers=NDJSON)
    assert [orjson.loads(line)["status"] for line in answer.content.splitlines()] == [200, 422, 422]
    assert events(owner) == []


async def test_nobody_gives_more_rights_than_they_have(commands: httpx.AsyncClient, owner: Owner) -> None:
    content = ndjson({"email": "one@example.com", "roles": ["admin"]}, {"email": "two@example.com"})
    headers = {**NDJSON, **authorized(scopes=frozenset({Scope.USERS_WRITE}))}
    for path in ("/users/import?check=true", "/users/import"):
        answer = await commands.post(path, content=content, headers=headers)
        first, second = (orjson.loads(line) for line in answer.content.splitlines())
        assert (first["status"], first["errors"][0]["code"]) == (403, "outranked")
        assert second["status"] in {200, 201}
    assert len(events(owner)) == 1


async def test_a_file_is_longer_than_any_body_and_arrives_in_pieces(commands: httpx.AsyncClient, owner: Owner) -> None:
    content = ndjson(*({**user, "attributes": {"filler": "x" * 500}} for user in users(300)))
    assert len(content) > 2 * 64 * 1024

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 777):
            yield content[start : start + 777]

    assert {result["status"] for result in await send(commands, pieces())} == {201}
    assert len(events(owner)) == 300


async def test_a_line_that_never_ends_is_refused_alone(commands: httpx.AsyncClient) -> None:
    content = b'{"email": "' + b"x" * 300_000 + b'"}\n{"email": "one@example.com"}\n'
    first, second = await send(commands, content)
    assert (first["status"], first["errors"][0]["code"], second["status"]) == (413, "line_too_large", 201)


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
async def test_an_empty_file_is_no_fault(commands: httpx.AsyncClient, content: bytes) -> None:
    assert await send(commands, content) == []


async def test_what_is_no_such_file_is_refused_whole(commands: httpx.AsyncClient) -> None:
    answer = await commands.post("/users/import", json=[{"email": "one@example.com"}])
    assert codes(answer, 415) == ["not_ndjson"]
    headers = {**NDJSON, "Idempotency-Key": "k" * 241}
    assert codes(await commands.post("/users/import", content=b"", headers=headers), 400) == [
        "malformed_idempotency_key"
    ]
