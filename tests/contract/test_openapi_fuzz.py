"""Whatever is sent, the answer is the caller's fault or a success, and always of a known shape."""

from collections.abc import Iterator
from urllib.parse import quote

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from command_api.app import create_app as create_command_app
from query_api.app import create_app as create_query_app
from runtime.problems import MEDIA_TYPE
from tests.apps import Caller, calling
from tests.databases import MakeSettings
from tests.people import ADA_ID

FUZZ = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=250,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def commands(make_settings: MakeSettings) -> Iterator[Caller]:
    with calling(create_command_app(make_settings("muster_command"))) as caller:
        yield caller


@pytest.fixture
def queries(make_settings: MakeSettings) -> Iterator[Caller]:
    with calling(create_query_app(make_settings("muster_query"))) as caller:
        yield caller


TEXTS = st.text(max_size=12) | st.sampled_from(
    ["", "\x00", "a\x00b", "ada@example.com", "Ada@EXAMPLE.com", "é@é.com", "user", "active", "disabled", "x" * 300]
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS
KEYS = st.sampled_from(["a", "b", "\x00", "~/", "é"]) | st.text(max_size=4)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
NEARLY_RIGHT = st.fixed_dictionaries(
    {},
    optional={
        "email": st.sampled_from([f"user{n}@example.com" for n in range(20)]) | JSON,
        "display_name": st.none() | st.text(min_size=1, max_size=20) | JSON,
        "status": st.sampled_from(["active", "disabled"]) | JSON,
        "roles": st.lists(st.sampled_from(["user", "admin"])) | JSON,
        "attributes": st.dictionaries(KEYS, JSON, max_size=3) | JSON,
        "password": st.text(min_size=8, max_size=12) | JSON,
    },
)


def as_json(value: object) -> bytes:
    """JSON of anything, integers of any size included; what has none (a NaN, a surrogate) becomes its text."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return repr(value).encode("utf-8", "surrogatepass")


BODIES = (NEARLY_RIGHT | JSON).map(as_json) | st.binary(max_size=40)
# what a server lets through: no control character but the tab
HEADER_VALUES = st.lists(st.sampled_from([9, *range(32, 127), *range(128, 256)]), max_size=20).map(bytes)


def header(name: str, *usual: bytes) -> tuple[bytes, st.SearchStrategy[bytes]]:
    return name.encode(), st.sampled_from([b"", *usual]) | HEADER_VALUES


def headers(*fields: tuple[bytes, st.SearchStrategy[bytes]]) -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    return st.lists(
        st.one_of([st.tuples(st.just(name), sent) for name, sent in fields]), max_size=4, unique_by=lambda pair: pair[0]
    )


COMMAND_HEADERS = headers(
    header("Idempotency-Key", b"key-1", b"key-2"),
    header("If-Match", b'"1"', b'"2"', b"*", b'W/"1"'),
    header("Reason", b"because", "Prüfung".encode()),
    header("X-Request-Id", b"request"),
    header("X-Correlation-Id", b"correlation"),
    header("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    header("Content-Type", b"application/json", b"application/merge-patch+json", b"text/plain"),
    header("Content-Length", b"0", b"7", b"99999999"),
    header("Host", b"muster"),
    header("Accept", b"*/*"),
)
QUERY_HEADERS = headers(
    header("Min-Position", b"0", b"1", b"99"),
    header("Prefer", b"wait=0"),
    header("If-None-Match", b'"1"', b"*"),
    header("Host", b"muster"),
)
QUERIES = st.dictionaries(
    st.sampled_from(["limit", "cursor", "sort", "email", "status", "role", "q", "as_of", "at_position"])
    | st.text(max_size=5),
    TEXTS | st.sampled_from(["1", "200", "email", "-created_at", "%", "\\", "_", "2026-03-01T00:00:00Z"]),
    max_size=4,
)
HISTORY_QUERIES = st.dictionaries(
    st.sampled_from(["from", "to", "order", "limit", "cursor", "after", "types", "user", "actor", "correlation"])
    | st.sampled_from(["since", "until", "as_of", "at_position", "version"]),
    TEXTS
    | st.integers(-(2**70), 2**70).map(str)
    | st.sampled_from(
        ["0", "1", "head", "newest", "UserCreated", str(ADA_ID), "2026-03-01T00:00:00Z", "0001-01-01T00Z"]
    ),
    max_size=4,
)


def quoted(segment: str) -> str:
    """As one segment of a path; clients take `.` and `..` for steps, however they are written."""
    return quote(segment, safe="").replace(".", "-")


def judge(answer: httpx.Response, *, may_be: tuple[int, ...]) -> None:
    assert answer.status_code in may_be, (answer.status_code, answer.text)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == MEDIA_TYPE
        assert answer.json()["errors"]
    assert answer.headers["x-request-id"].isprintable()


@FUZZ
@given(
    method=st.sampled_from(["POST", "PUT", "PATCH", "DELETE"]),
    last=st.sampled_from(["", "known", str(ADA_ID)]) | st.text(max_size=5),
    body=BODIES,
    sent=COMMAND_HEADERS,
    right_type=st.booleans(),
)
def test_no_command_breaks_the_command_api(
    commands: Caller,
    method: str,
    last: str,
    body: bytes,
    sent: list[tuple[bytes, bytes]],
    *,
    right_type: bool,
) -> None:
    if last == "known":
        made = commands.call("POST", "/users", json={"email": "known@example.com"})
        last = made.json()["id"] if made.status_code == 201 else str(ADA_ID)
    if right_type:
        sent = [(b"Content-Type", b"application/json"), *(pair for pair in sent if pair[0] != b"Content-Type")]
    path = "/users" if method == "POST" else f"/users/{quoted(last)}"
    answer = commands.call(method, path, content=body, headers=sent)
    judge(answer, may_be=(200, 201, 400, 404, 405, 409, 410, 412, 413, 415, 422))


@FUZZ
@given(parameters=QUERIES, sent=QUERY_HEADERS)
def test_no_list_breaks_the_query_api(
    queries: Caller, parameters: dict[str, str], sent: list[tuple[bytes, bytes]]
) -> None:
    answer = queries.call("GET", "/users", params=parameters, headers=sent)
    stale = any(name == b"Min-Position" for name, _ in sent)
    judge(answer, may_be=(200, 422, 503) if stale else (200, 422))


@FUZZ
@given(path=st.sampled_from(["", "/history", "/diff"]), parameters=HISTORY_QUERIES)
def test_no_question_about_the_past_breaks_the_query_api(
    queries: Caller, path: str, parameters: dict[str, str]
) -> None:
    judge(queries.call("GET", f"/users/{ADA_ID}{path}", params=parameters), may_be=(404, 422))
    judge(queries.call("GET", "/events", params=parameters), may_be=(200, 422))


@FUZZ
@given(last=st.just(str(ADA_ID)) | st.text(min_size=1, max_size=8), sent=QUERY_HEADERS)
def test_no_read_breaks_the_query_api(queries: Caller, last: str, sent: list[tuple[bytes, bytes]]) -> None:
    answer = queries.call("GET", f"/users/{quoted(last)}", headers=sent)
    stale = any(name == b"Min-Position" for name, _ in sent)
    judge(answer, may_be=(404, 422, 503) if stale else (404, 422))
