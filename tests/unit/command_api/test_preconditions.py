import pytest
from fastapi import Request

from command_api.preconditions import accepted_versions, idempotency_key, reason
from runtime.problems import Problem

NONE: set[int] = set()


def request(*if_match: str) -> Request:
    headers = [(b"if-match", line.encode("latin-1")) for line in if_match]
    return Request({"type": "http", "method": "PUT", "path": "/", "headers": headers})


async def versions(*if_match: str) -> frozenset[int] | None:
    return await accepted_versions(request(*if_match), if_match[0] if if_match else None)


@pytest.mark.parametrize(
    ("lines", "accepted"),
    [
        ((), None),
        (("*",), None),
        (('"3"',), {3}),
        (('"3", "4"',), {3, 4}),
        (('"3"', '"4"'), {3, 4}),
        (('W/"3"',), NONE),
        (('W/"3", "4"',), {4}),
        (('"abc"',), NONE),
        (('"03"',), NONE),
        (('"3.0"',), NONE),
        (('"-3"',), NONE),
        (('"\xb3"',), NONE),
        ((f'"{"9" * 5000}"',), NONE),
    ],
)
async def test_if_match_names_versions(lines: tuple[str, ...], accepted: set[int] | None) -> None:
    assert await versions(*lines) == accepted


@pytest.mark.parametrize("line", ["", "3", '"3', "v3", '"3" "4"', '"3", *'])
async def test_a_malformed_if_match_is_refused(line: str) -> None:
    with pytest.raises(Problem) as refused:
        await versions(line)
    assert refused.value.status_code == 400
    assert refused.value.faults[0].parameter == "If-Match"


@pytest.mark.parametrize("key", [None, "a", '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "x" * 255, "~!"])
async def test_an_idempotency_key_is_taken_as_it_is(key: str | None) -> None:
    assert await idempotency_key(key) == key


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "schl\xfcssel", "a\n", "a\x00"])
async def test_a_key_that_cannot_be_kept_is_refused(key: str) -> None:
    with pytest.raises(Problem) as refused:
        await idempotency_key(key)
    assert refused.value.status_code == 400
    assert refused.value.faults[0].parameter == "Idempotency-Key"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (None, None),
        (b"", None),
        (b"asked by the works council", "asked by the works council"),
        ("Prüfung".encode(), "Prüfung"),
        ("é".encode() * 500, "é" * 500),
    ],
)
async def test_a_reason_is_utf_8(sent: bytes | None, kept: str | None) -> None:
    assert await reason(None if sent is None else sent.decode("latin-1")) == kept


@pytest.mark.parametrize("sent", [b"\xff", b"a\x00b", b"a\tb", b"x" * 501, "\u2028".encode()])
async def test_a_reason_that_cannot_be_kept_is_refused(sent: bytes) -> None:
    with pytest.raises(Problem) as refused:
        await reason(sent.decode("latin-1"))
    assert refused.value.status_code == 400
    assert refused.value.faults[0].parameter == "Reason"
