"""A marked endpoint answers each request as FastAPI's own way to it would, whatever is asked."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Header, Path, Request, Response, Security
from fastapi.security import SecurityScopes
from prometheus_client import REGISTRY
from pydantic import BaseModel, ConfigDict

from runtime.direct import DirectRoutes, direct
from runtime.health import Readiness
from runtime.problems import Problem
from runtime.requests import MAX_BODY, StrictJsonRoute, refuse_malformed
from runtime.web import web_app

ID = "0192d3c8-5b0e-7c31-9d5e-0a3f6f6f2b11"
JSON = {"content-type": "application/json"}
KNOWN = {"authorization": "known"}


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    size: int = 1


async def gate(request: Request, scopes: SecurityScopes) -> str:
    request.app.state.asked.append(scopes.scopes)
    if "authorization" not in request.headers:
        raise Problem(401, "unauthenticated", "Say who you are")
    return request.headers["authorization"]


async def json_body(request: Request) -> None:
    await refuse_malformed(request)


async def key(idempotency_key: Annotated[str | None, Header(alias="Idempotency-Key")] = None) -> str | None:
    if idempotency_key == "bad":
        raise Problem(400, "bad_key", "The key cannot be used")
    return idempotency_key


Caller = Annotated[str, Security(gate, scopes=["write"])]
router = APIRouter(route_class=StrictJsonRoute)


@router.post("/things", dependencies=[Security(gate, scopes=["write"]), Depends(json_body)])
@direct
async def create(
    http: Request, caller: Caller, sent: Annotated[str | None, Depends(key)], body: Annotated[Thing, Body()]
) -> Response:
    told = f"{caller} {sent} {body!r} {await http.body()!r} {http.method} {http.url.path}"
    return Response(told, 201, {"Location": "/things/1"})


@router.delete("/things/{id}")
@direct
async def delete(http: Request, caller: Caller, thing_id: Annotated[UUID, Path(alias="id")]) -> Response:
    if thing_id.version != 7:
        raise Problem(404, "unknown", "There is none")
    return Response(f"{caller} {thing_id!r} {http.path_params} {await http.body()!r}")


@router.get("/things/me")
async def me(caller: Annotated[str, Security(gate, scopes=["self"])]) -> Response:
    return Response(f"oneself, {caller}")


@router.get("/things/{id}")
@direct
async def read(
    thing_id: Annotated[UUID, Path(alias="id")],
    want: Annotated[str, Header(alias="Prefer")] = "",
) -> Response:
    if want == "failure":
        raise ValueError("a mistake of ours")
    return Response(f"{thing_id!r} {want!r}")


def app_of(*, with_direct: bool, origins: frozenset[str] = frozenset()) -> FastAPI:
    @asynccontextmanager
    async def resources() -> AsyncGenerator[None]:
        yield

    app = web_app(
        title="Things",
        description="",
        readiness=Readiness(),
        resources=resources,
        tags=[],
        origins=origins,
    )
    app.include_router(router)
    app.state.asked = []
    app.user_middleware = [layer for layer in app.user_middleware if with_direct or layer.cls is not DirectRoutes]
    return app


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


Asked = tuple[str, str, dict[str, Any]]
PLAIN: list[Asked] = [
    ("POST", "/things", {"content": b'{"name": "a"}', "headers": JSON | KNOWN}),
    ("POST", "/things", {"content": b'{"name": "a"}', "headers": JSON | KNOWN | {"idempotency-key": "k"}}),
    ("DELETE", f"/things/{ID}", {"headers": KNOWN}),
    ("DELETE", f"/things/{ID}", {"headers": KNOWN, "content": b"unasked"}),
    ("GET", f"/things/{ID}", {}),
    ("GET", f"/things/{ID}?at=3", {"headers": {"prefer": "wait"}}),
]
OTHERS: list[Asked] = [
    ("POST", "/things", {"content": b'{"name": "a"}', "headers": JSON}),
    ("POST", "/things", {"content": b'{"name": 1}', "headers": JSON | KNOWN}),
    ("POST", "/things", {"content": b'{"name": "a", "other": 1}', "headers": JSON}),
    ("POST", "/things", {"content": b'{"name": "a"', "headers": JSON | KNOWN}),
    ("POST", "/things", {"content": b'{"name": NaN}', "headers": JSON | KNOWN}),
    ("POST", "/things", {"content": b"", "headers": JSON | KNOWN}),
    ("POST", "/things", {"content": b'{"name": "a"}', "headers": {"content-type": "text/plain"} | KNOWN}),
    ("POST", "/things", {"content": b'{"name": "a"}', "headers": {"content-type": "application/json; a=b"} | KNOWN}),
    ("POST", "/things", {"content": b'{"name": "a"}', "headers": KNOWN}),
    ("POST", "/things", {"content": b'{"name": "a"}', "headers": JSON | KNOWN | {"idempotency-key": "bad"}}),
    ("POST", "/things", {"content": b'{"name": 1}', "headers": JSON | KNOWN | {"idempotency-key": "bad"}}),
    ("POST", "/things", {"content": b"x" * (MAX_BODY + 1), "headers": JSON | KNOWN}),
    ("POST", "/things", {"content": b'{"name": "a"}', "headers": JSON | KNOWN | {"origin": "https://page.example"}}),
    ("PUT", "/things", {"content": b"{}", "headers": JSON | KNOWN}),
    ("DELETE", f"/things/{ID.upper()}", {"headers": KNOWN}),
    ("DELETE", f"/things/{ID.replace('-', '')}", {"headers": KNOWN}),
    ("DELETE", "/things/00000000-0000-4000-8000-000000000000", {"headers": KNOWN}),
    ("DELETE", "/things/none", {"headers": KNOWN}),
    ("DELETE", "/things/none", {}),
    ("DELETE", f"/things/{ID}", {"headers": KNOWN, "content": b"x" * (MAX_BODY + 1)}),
    ("GET", "/things/me", {"headers": KNOWN}),
    ("GET", f"/things/{ID}/", {}),
    ("HEAD", f"/things/{ID}", {}),
    ("GET", f"/things/{ID}", {"headers": {"prefer": "failure"}}),
    ("OPTIONS", "/things", {"headers": {"origin": "https://page.example", "access-control-request-method": "POST"}}),
]


async def answer_of(app: FastAPI, asked: Asked, content: AsyncIterator[bytes] | None = None) -> tuple[object, ...]:
    method, path, more = asked
    headers: dict[str, str] = {"x-request-id": "the-same", **more.get("headers", {})}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://things") as client:
        answer = await client.request(method, path, content=content or more.get("content"), headers=headers)
    return answer.status_code, dict(answer.headers), answer.content


@pytest.mark.parametrize("asked", [*PLAIN, *OTHERS], ids=lambda asked: f"{asked[0]} {asked[1]}")
@pytest.mark.parametrize("origins", [frozenset[str](), frozenset({"https://page.example"})], ids=["no CORS", "CORS"])
async def test_it_answers_as_the_framework_does(asked: Asked, origins: frozenset[str]) -> None:
    expected = await answer_of(app_of(with_direct=False, origins=origins), asked)
    assert await answer_of(app_of(with_direct=True, origins=origins), asked) == expected


@pytest.mark.parametrize("asked", [*PLAIN, *OTHERS], ids=lambda asked: f"{asked[0]} {asked[1]}")
async def test_a_body_may_come_in_pieces(asked: Asked) -> None:
    sent = asked[2].get("content", b"")
    pieces = [sent[:3], sent[3:100], sent[100:]]
    expected = await answer_of(app_of(with_direct=False), asked, chunks(*pieces))
    assert await answer_of(app_of(with_direct=True), asked, chunks(*pieces)) == expected


async def test_a_dependency_that_is_named_twice_is_asked_once() -> None:
    app = app_of(with_direct=True)
    await answer_of(app, PLAIN[0])
    assert app.state.asked == [["write"]]


@pytest.mark.parametrize("asked", PLAIN, ids=lambda asked: f"{asked[0]} {asked[1]}")
async def test_plain_requests_do_not_reach_the_framework(asked: Asked) -> None:
    async def router(*_: object) -> None:
        raise AssertionError("the app's own router was asked")

    app = app_of(with_direct=True)
    app.router.middleware_stack = router
    status, *_ = await answer_of(app, asked)
    assert status in {200, 201}


async def test_a_failure_is_counted_as_the_routes() -> None:
    labels = {"method": "GET", "route": "/things/{id}", "status": "500"}
    before = REGISTRY.get_sample_value("muster_http_requests_total", labels) or 0
    await answer_of(app_of(with_direct=True), ("GET", f"/things/{ID}", {"headers": {"prefer": "failure"}}))
    assert REGISTRY.get_sample_value("muster_http_requests_total", labels) == before + 1


async def test_an_override_of_a_dependency_counts() -> None:
    app = app_of(with_direct=True)
    app.dependency_overrides[gate] = lambda: "somebody else"
    _, _, told = await answer_of(app, PLAIN[0])
    assert b"somebody else" in bytes(str(told), "utf-8")


async def test_an_endpoint_that_no_plan_can_serve_keeps_the_app_from_starting() -> None:
    app = app_of(with_direct=True)

    @app.get("/late")
    @direct
    async def late(response: Response) -> Response:  # pyright: ignore[reportUnusedFunction]
        return response

    with pytest.raises(TypeError, match="/late takes what no plan can give"):
        await app({"type": "lifespan", "app": app}, nothing, nothing)


async def nothing(*_: object) -> Any:  # noqa: ANN401 - never called
    raise AssertionError
