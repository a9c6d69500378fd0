from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.staticfiles import StaticFiles
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from identity.access_tokens import Caller
from identity.caller import ANY_CALLER, for_anyone, for_every_caller, needs
from identity.guard import UnguardedRoute, access_of, check_routes, guarded_routes, required_scopes
from identity.roles import Scope

COMMANDS = {
    ("POST", "/users"): {"users:write"},
    ("POST", "/users/import"): {"users:write"},
    ("PUT", "/users/{id}"): {"users:write"},
    ("PATCH", "/users/{id}"): {"users:write"},
    ("DELETE", "/users/{id}"): {"users:write"},
    ("POST", "/users/{id}/erase"): {"users:erase"},
    ("PUT", "/users/me"): {"self"},
    ("PATCH", "/users/me"): {"self"},
    ("GET", "/sessions"): "caller",
    ("DELETE", "/sessions/{id}"): "caller",
    ("POST", "/login"): "anyone",
    ("POST", "/refresh"): "anyone",
    ("POST", "/logout"): "anyone",
    ("GET", "/.well-known/jwks.json"): "anyone",
}
QUERIES = {
    ("GET", "/users"): {"users:read"},
    ("GET", "/users/{id}"): {"users:read"},
    ("GET", "/users/me"): {"self"},
    ("GET", "/projection"): {"ops"},
    ("GET", "/users/{id}/history"): {"events:read"},
    ("GET", "/users/{id}/diff"): {"events:read"},
    ("GET", "/users/{id}/erasure"): {"events:read"},
    ("GET", "/users/{id}/export"): {"users:read", "events:read"},
    ("GET", "/users/me/export"): {"self"},
    ("GET", "/events"): {"events:read"},
    ("GET", "/schemas"): "anyone",
    ("GET", "/schemas/{file}"): "anyone",
    ("GET", "/asyncapi"): "anyone",
    ("GET", "/proofs/key"): "anyone",
    ("GET", "/proofs/checkpoint"): "anyone",
    ("GET", "/proofs/inclusion/{position}"): "anyone",
    ("GET", "/proofs/consistency"): "anyone",
    ("GET", "/proofs/tile/{path}"): "anyone",
    ("GET", "/proofs/tile/entries/{path}"): {"events:read"},
    ("GET", "/.well-known/jwks.json"): "anyone",
}
HEALTH = {"/livez", "/readyz", "/metrics"}
DECLARED: dict[str, dict[tuple[str, str], Any]] = {
    "Muster command API": COMMANDS,
    "Muster query API": QUERIES,
    "Muster projector": {},
}


async def endpoint() -> None: ...


async def dependency(_: Annotated[Caller, needs(Scope.OPS)]) -> None: ...


async def guarded(_: Annotated[Caller, needs(Scope.OPS)]) -> None: ...


async def guarded_deep(_: Annotated[None, Depends(dependency)]) -> None: ...


@for_anyone
async def public() -> None: ...


@for_every_caller
async def personal(_: Annotated[Caller, ANY_CALLER]) -> None: ...


@for_every_caller
async def personal_in_name_only() -> None: ...


async def unmarked(_: Annotated[Caller, ANY_CALLER]) -> None: ...


async def bare(_: Request) -> PlainTextResponse:
    return PlainTextResponse("")


async def socket(_: WebSocket) -> None: ...


def with_router(app: FastAPI, endpoint: Callable[..., Any], *, prefix: str = "", depth: int = 1) -> None:
    router = APIRouter()
    router.get("/here")(endpoint)
    for _ in range(depth - 1):
        outer = APIRouter()
        outer.include_router(router, prefix="/inner")
        router = outer
    app.include_router(router, prefix=prefix)


def mounted(app: FastAPI) -> None:
    other = FastAPI(openapi_url=None)
    other.get("/here")(guarded)
    app.mount("/other", other)


def mounted_in_a_router(app: FastAPI) -> None:
    router = APIRouter()
    router.mount("/other", FastAPI(openapi_url=None))
    app.include_router(router)


def bare_in_a_router(app: FastAPI) -> None:
    router = APIRouter()
    router.add_route("/here", bare)
    app.include_router(router)


def frontend_in_a_router(app: FastAPI) -> None:
    inner, outer = APIRouter(), APIRouter()
    inner.frontend("/pages", directory=Path(__file__).parent)
    outer.include_router(inner)
    app.include_router(outer)


def late(app: FastAPI) -> None:
    router = APIRouter()
    app.include_router(router)
    router.get("/here")(endpoint)


UNGUARDED: dict[str, Callable[[FastAPI], object]] = {
    "of the app itself": lambda app: app.get("/here")(endpoint),
    "of an included router": lambda app: with_router(app, endpoint),
    "of an included router with a prefix": lambda app: with_router(app, endpoint, prefix="/v1"),
    "of a router in a router in a router": lambda app: with_router(app, endpoint, depth=3),
    "added to a router after it was included": late,
    "hidden from the documents": lambda app: app.get("/here", include_in_schema=False)(endpoint),
    "of a mounted app": mounted,
    "of an app that a router mounts": mounted_in_a_router,
    "mounted where the documentation's files are": lambda app: app.mount("/static-offline-docs", FastAPI()),
    "of files": lambda app: app.mount("/files", StaticFiles(directory=Path(__file__).parent)),
    "of pages": lambda app: app.frontend("/pages", directory=Path(__file__).parent),
    "of a router's pages": frontend_in_a_router,
    "a bare one": lambda app: app.add_route("/here", bare),
    "a bare one of a router": bare_in_a_router,
    "a WebSocket": lambda app: app.websocket("/here")(socket),
    "that takes a caller and does not say so": lambda app: app.get("/here")(unmarked),
    "that says it takes a caller and does not": lambda app: app.get("/here")(personal_in_name_only),
    "that says so in a router": lambda app: with_router(app, personal_in_name_only),
    "that writes where counters are read": lambda app: app.post("/metrics")(endpoint),
}


@pytest.mark.parametrize("add", UNGUARDED.values(), ids=UNGUARDED)
def test_an_app_with_a_route_that_declares_nothing_does_not_start(add: Callable[[FastAPI], object]) -> None:
    app = FastAPI(docs_url=None, redoc_url=None)
    check_routes(app)
    add(app)
    with pytest.raises(UnguardedRoute):
        check_routes(app)


@pytest.mark.parametrize("kind", [guarded, guarded_deep, public, personal])
@pytest.mark.parametrize("depth", [1, 3])
def test_an_app_whose_routes_declare_what_they_need_starts(kind: Callable[..., Any], depth: int) -> None:
    app = FastAPI(docs_url=None, redoc_url=None)
    app.get("/there")(kind)
    with_router(app, kind, prefix="/v1", depth=depth)
    check_routes(app)
    assert [route.path for route in guarded_routes(app)] == ["/there", f"/v1{'/inner' * (depth - 1)}/here"]


def test_a_whole_router_may_declare_what_its_routes_need() -> None:
    app, router = FastAPI(docs_url=None, redoc_url=None), APIRouter()
    router.get("/here")(endpoint)
    app.include_router(router, dependencies=[needs(Scope.OPS)])
    check_routes(app)
    assert [required_scopes(route) for route in guarded_routes(app)] == [{"ops"}]


def test_a_need_names_a_scope() -> None:
    with pytest.raises(ValueError, match="name a scope"):
        needs()


def test_every_route_declares_what_it_should(app: FastAPI) -> None:
    check_routes(app)
    found = {
        (method, str(route.path).replace(":path}", "}")): required_scopes(route) or access_of(route)
        for route in guarded_routes(app)
        for method in route.methods or ()
    }
    assert found == DECLARED[app.title]


def test_all_that_is_documented_is_guarded_or_health(app: FastAPI) -> None:
    documented = {
        (method.upper(), path) for path, operations in app.openapi()["paths"].items() for method in operations
    }
    assert documented == DECLARED[app.title].keys() | {("GET", path) for path in HEALTH}


def test_a_documented_route_tells_its_scopes(app: FastAPI) -> None:
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            declared = DECLARED[app.title].get((method.upper(), path), "anyone")
            # who logs out may do so by a refresh token as well
            named: list[dict[str, list[str]]] | None = [{"muster": []}, {}] if path == "/logout" else None
            match declared:
                case "anyone":
                    assert operation.get("security") == named, path
                case "caller":
                    assert operation["security"] == [{"muster": []}], path
                case _:
                    assert operation["security"] == [{"muster": sorted(declared)}], path
            if declared != "anyone":
                assert {"401", "403"} <= operation["responses"].keys(), path


def test_the_documents_know_every_scope(app: FastAPI) -> None:
    if not DECLARED[app.title]:
        assert "securitySchemes" not in app.openapi().get("components", {})
        return
    flows = app.openapi()["components"]["securitySchemes"]["muster"]["flows"]
    assert {name: set(flow["scopes"]) for name, flow in flows.items()} == {
        "password": {scope.value for scope in Scope},
        "clientCredentials": {scope.value for scope in Scope},
    }
