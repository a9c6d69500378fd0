import json
from collections.abc import AsyncIterator

import httpx
import pytest

from runtime.requests import MAX_BODY
from tests.calls import codes, create
from tests.people import ADA_ID

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"ada",
        b"{'email': 'ada@example.com'}",
        b'{"email": "ada@example.com",}',
        b'{"email": "ada@example.com"} {}',
        b'{"email": "ada@example.com", "attributes": {"x": NaN}}',
        b'{"email": "ada@example.com", "attributes": {"x": Infinity}}',
        b'{"email": "ada@example.com", "attributes": {"x": 1e400}}',
        b'{"email": "ada@example.com", "attributes": {"x": 01}}',
        b'{"email": "ada@example.com", "attributes": {"x": "\\ud800"}}',
        b'{"email": "ada@example.com", "attributes": {"x": "\xed\xa0\x80"}}',
        b'{"email": "ada@example.com", "display_name": "\xff"}',
        b'\xef\xbb\xbf{"email": "ada@example.com"}',
        b'{"email": "ada@example.com", "attributes": {"x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}}",
        b'{"email": "ada@example.com", "attributes": ' + b'{"x":' * 8_000 + b"1" + b"}" * 8_000 + b"}",
    ],
    ids=[
        "cut off", "bare", "single quotes", "trailing comma", "two documents", "NaN", "Infinity", "1e400", "leading 0",
        "lone surrogate", "encoded surrogate", "not UTF-8", "byte order mark", "deep array", "deep object",
    ],
)  # fmt: skip
async def test_what_is_not_json_is_refused(commands: httpx.AsyncClient, body: bytes) -> None:
    answer = await commands.post("/users", content=body, headers=JSON)
    assert codes(answer, 400) == ["malformed_json"]


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"ada@example.com"', b"7", b"true"])
async def test_a_body_that_is_no_object_is_refused(commands: httpx.AsyncClient, body: bytes) -> None:
    answer = await commands.post("/users", content=body, headers=JSON)
    assert len(codes(answer, 422)) == 1
    assert answer.json()["errors"][0]["pointer"] == "#"


async def test_numbers_of_a_double_or_64_bits_are_kept(commands: httpx.AsyncClient) -> None:
    numbers = "[1e308, -1e308, 5e-324, 18446744073709551615, -9223372036854775808, 0.1, 1.0]"
    body = f'{{"email": "ada@example.com", "attributes": {{"x": {numbers}}}}}'
    answer = await commands.post("/users", content=body, headers=JSON)
    assert answer.json()["attributes"] == {"x": json.loads(numbers)}


@pytest.mark.parametrize(
    "kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/xml", "text/json",
             "application/merge-patch+json"],
)  # fmt: skip
async def test_a_body_that_does_not_say_it_is_json_is_refused(commands: httpx.AsyncClient, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = await commands.post("/users", content=b'{"email": "ada@example.com"}', headers=headers)
    assert codes(answer, 415) == ["not_json"]
    assert answer.headers["accept"] == "application/json"


async def test_a_patch_is_json_or_merge_patch(commands: httpx.AsyncClient) -> None:
    user = await create(commands)
    path = f"/users/{user['id']}"
    for kind in ("application/json", "application/JSON; charset=utf-8", "application/merge-patch+json"):
        answer = await commands.patch(path, content=b'{"display_name": "Ada"}', headers={"Content-Type": kind})
        assert answer.status_code == 200
    refused = await commands.patch(path, content=b"[]", headers={"Content-Type": "application/json-patch+json"})
    assert codes(refused, 415) == ["not_json"]
    assert refused.headers["accept-patch"] == "application/json, application/merge-patch+json"


def padded(size: int) -> bytes:
    body = b'{"email": "ada@example.com"}'
    return body + b" " * (size - len(body))


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


async def test_64_kib_are_taken(commands: httpx.AsyncClient) -> None:
    assert (await commands.post("/users", content=padded(MAX_BODY), headers=JSON)).status_code == 201


async def test_more_is_refused_by_its_announced_length(commands: httpx.AsyncClient) -> None:
    answer = await commands.post("/users", content=padded(MAX_BODY + 1), headers=JSON)
    assert codes(answer, 413) == ["body_too_large"]


async def test_more_is_refused_when_no_length_is_announced(commands: httpx.AsyncClient) -> None:
    assert (await commands.post("/users", content=chunks(padded(MAX_BODY)), headers=JSON)).status_code == 201
    answer = await commands.post("/users", content=chunks(padded(MAX_BODY + 1)), headers=JSON)
    assert answer.request.headers.get("content-length") is None
    assert codes(answer, 413) == ["body_too_large"]


@pytest.mark.parametrize("length", ["10", "0", "-1", "many", "9" * 5000])
async def test_a_length_that_lies_does_not_help(commands: httpx.AsyncClient, length: str) -> None:
    headers = {**JSON, "Content-Length": length}
    answer = await commands.post("/users", content=chunks(padded(MAX_BODY + 1)), headers=headers)
    assert codes(answer, 413) == ["body_too_large"]


async def test_a_deletion_with_a_body_is_bounded_too(commands: httpx.AsyncClient) -> None:
    answer = await commands.request(
        "DELETE",
        f"/users/{ADA_ID}",
        content=chunks(b"x" * (MAX_BODY + 1)),
        headers={"Idempotency-Key": "delete-1"},
    )
    assert codes(answer, 413) == ["body_too_large"]
