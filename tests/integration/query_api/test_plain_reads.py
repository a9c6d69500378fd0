"""What is answered before the routes is answered as they do: a scheme in small letters is the routes' in any case."""

from dataclasses import replace
from urllib.parse import quote

import httpx

from query_api.app import create_app
from tests.apps import client_of
from tests.databases import MakeSettings
from tests.integration.query_api.conftest import MakeUser
from tests.integration.query_api.test_list import WRONG
from tests.people import ADA, ADA_ID, LATER
from tests.read_model import ReadModel

OWN = {"x-request-id", "x-correlation-id"}
IDS = (
    str(ADA_ID),
    str(ADA_ID).upper(),
    ADA_ID.hex,
    f"{{{ADA_ID}}}",
    f"urn:uuid:{ADA_ID}",
    f"{ADA_ID}%20",
    f"{ADA_ID}/",
)
HEADERS: tuple[list[tuple[str, str]], ...] = (
    [],
    [("If-None-Match", '"1"')],
    [("If-None-Match", '"2"'), ("If-None-Match", 'W/"1"')],
    [("If-None-Match", "")],
    [("Min-Position", "0")],
    [("Min-Position", "0"), ("Prefer", "wait=5")],
    [("Min-Position", "0"), ("Prefer", "handling=strict"), ("Prefer", 'wait="1"')],
    [("Min-Position", "999")],
    [("Min-Position", "+0")],
    [("Min-Position", "many")],
    [("Min-Position", "-1")],
    [("Min-Position", str(2**63))],
    [("Min-Position", "0"), ("Min-Position", "999")],
    [("Prefer", "wait=many")],
    [("Cookie", "muster_access=x")],
    [("Authorization", "Bearer x")],
)
LISTS = (
    "",
    "?",
    "?limit=2",
    "?limit=%32",
    "?limit=+2",
    "?limit=2.0",
    "?limit=2&limit=1",
    "?limit=1&",
    "?limit=1;sort=email",
    "?sort=-email&limit=1",
    "?sort=email&limit=1&status=active",
    "?email=ADA%40example.com",
    "?email=ADA@example.com&email=x",
    "?q=USER&role=user&limit=1",
    "?q=%F0%28&limit=1",
    "?q=\u00e4",
    "?q=a+b",
    "?status=",
    "?status=Active",
    "?cursor=x",
    "?cursor=",
    "?as_of=2026-01-01T00:00:00Z",
    "?at_position=0",
    "?at_position=1&as_of=x",
)


async def both(queries: httpx.AsyncClient, path: str, sent: list[tuple[str, str]]) -> tuple[object, object]:
    """The answers to a request as it is, and with the scheme of its token in small letters."""
    plain, routed = await answered(queries, path, sent, "Bearer"), await answered(queries, path, sent, "bearer")
    return plain, routed


async def answered(queries: httpx.AsyncClient, path: str, sent: list[tuple[str, str]], scheme: str) -> object:
    """All of an answer but the ids of its request."""
    token = queries.headers["authorization"].removeprefix("Bearer ")
    request = queries.build_request("GET", path)
    request.headers = httpx.Headers([("host", "test"), ("authorization", f"{scheme} {token}"), *sent])
    answer = await queries.send(request)
    headers = [(name, value) for name, value in answer.headers.multi_items() if name not in OWN]
    if answer.is_error:
        problem: dict[str, object] = answer.json()
        return answer.status_code, {**problem, "request_id": ""}, sorted(headers)
    return answer.status_code, answer.content, headers


async def test_a_user_is_answered_as_by_the_route(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser
) -> None:
    gone = make_user(1, deleted_at=LATER)
    model.hold([ADA, gone])
    for path in (*IDS, str(gone.id), str(make_user(2).id), f"{ADA_ID}?x=1", f"{ADA_ID}?version=1", "me"):
        for sent in HEADERS:
            plain, routed = await both(queries, f"/users/{path}", sent)
            assert plain == routed, (path, sent)


async def test_a_list_is_answered_as_by_the_route(
    queries: httpx.AsyncClient, model: ReadModel, make_user: MakeUser
) -> None:
    model.hold([ADA, *(make_user(number) for number in range(1, 5))])
    wrong = [f"?{query}" for query, _ in WRONG]
    cursor = (await queries.get("/users?limit=1")).json()["next_cursor"]
    cursors = [f"?limit=1&cursor={quote(cursor)}", f"?limit=1&sort=email&cursor={quote(cursor)}"]
    for query in (*LISTS, *wrong, *cursors):
        plain, routed = await both(queries, f"/users{query}", [])
        assert plain == routed, query
    for sent in HEADERS:
        plain, routed = await both(queries, "/users?limit=2", sent)
        assert plain == routed, sent


async def test_plain_reads_need_no_routes(make_settings: MakeSettings, model: ReadModel) -> None:
    model.hold([replace(ADA, version=2)])
    app = create_app(make_settings("muster_query"))
    async with client_of(app) as queries:
        await queries.get("/users")
        app.router.routes.clear()
        for path in (f"/users/{ADA_ID}", "/users", "/users?limit=50&sort=-email&q=a"):
            assert (await queries.get(path)).status_code == 200
            assert (await queries.get(path, headers={"Min-Position": "0", "Prefer": "wait=1"})).status_code == 200
        assert (await queries.get(f"/users/{ADA_ID}", headers={"If-None-Match": '"2"'})).status_code == 304
        assert (await queries.get("/users/me")).status_code == 404
