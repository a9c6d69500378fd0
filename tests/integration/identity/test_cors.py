"""What a browser is told about pages of other origins (the Fetch standard, CORS protocol)."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from command_api.app import create_app as create_command_app
from query_api.app import create_app as create_query_app
from runtime.settings import Settings
from tests.calls import codes
from tests.databases import MakeSettings
from tests.logins import EMAIL, log_in, visitor
from tests.tokens import authorized, token_of

APP = "https://app.example.com"
EVIL = "https://evil.example"
MakeApp = Callable[..., FastAPI]
APIS: dict[str, tuple[str, Callable[[Settings], FastAPI]]] = {
    "command": ("muster_command", create_command_app),
    "query": ("muster_query", create_query_app),
}
NOT_ALLOWED = [
    EVIL,
    "null",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com.evil.example",
    "https://sub.app.example.com",
    "https://APP.example.com",
    "https://muster",
]


@pytest.fixture(params=sorted(APIS))
def make_app(request: pytest.FixtureRequest, make_settings: MakeSettings) -> MakeApp:
    role, create_app = APIS[request.param]

    def make(**overrides: object) -> FastAPI:
        return create_app(make_settings(role, **overrides))

    return make


async def preflight(client: httpx.AsyncClient, origin: str, method: str = "PATCH", headers: str = "") -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        asked["Access-Control-Request-Headers"] = headers
    return await client.options("/users/me", headers=asked)


def cors(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def split(value: str) -> set[str]:
    return {part.strip().lower() for part in value.split(",")}


async def test_pages_of_an_allowed_origin_may_ask(make_app: MakeApp) -> None:
    app = make_app(allowed_origins=f"{APP}, https://b.example")
    async with app.router.lifespan_context(app):
        client = visitor(app)
        for origin in (APP, "https://b.example"):
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
                wanted = "authorization, content-type, if-match, idempotency-key, min-position, prefer, x-request-id"
                answer = await preflight(client, origin, method, wanted)
                assert answer.status_code == 200
                told = cors(answer)
                assert told["access-control-allow-origin"] == origin
                assert method.lower() in split(told["access-control-allow-methods"])
                assert split(wanted) <= split(told["access-control-allow-headers"])
                assert told["access-control-max-age"] == "600"
                assert "access-control-allow-credentials" not in told
                # no cache gives one origin what another was told
                assert "origin" in split(answer.headers["vary"])
        assert (await preflight(client, APP, "TRACE")).status_code == 400


@pytest.mark.parametrize("origin", NOT_ALLOWED)
async def test_pages_of_no_other_origin_may(make_app: MakeApp, origin: str) -> None:
    app = make_app(allowed_origins=APP)
    async with app.router.lifespan_context(app):
        client = visitor(app)
        answer = await preflight(client, origin)
        assert answer.status_code == 400
        assert "access-control-allow-origin" not in cors(answer)
        assert "access-control-allow-credentials" not in cors(answer)
        read = await client.get("/.well-known/jwks.json", headers={"Origin": origin})
        assert read.status_code == 200
        assert "access-control-allow-origin" not in cors(read)


async def test_without_allowed_origins_there_are_none(make_app: MakeApp) -> None:
    app = make_app()
    async with app.router.lifespan_context(app):
        client = visitor(app)
        for origin in (APP, EVIL, "null", "https://muster"):
            answer = await preflight(client, origin)
            assert codes(answer, 405) == ["method_not_allowed"]
            assert cors(answer) == {}
            assert cors(await client.get("/.well-known/jwks.json", headers={"Origin": origin})) == {}


async def test_answers_and_refusals_can_be_read_with_their_headers(make_app: MakeApp) -> None:
    app = make_app(allowed_origins=APP)
    async with app.router.lifespan_context(app):
        client = visitor(app)
        from_app = {"Origin": APP}
        for answer, status in (
            (await client.get("/.well-known/jwks.json", headers=from_app), 200),
            (await client.get("/users/me", headers=from_app | {"Authorization": "Bearer x"}), (401, 405)),
            (await client.get("/nowhere", headers=from_app), 404),
            (await client.get("/livez", headers=from_app), 200),
        ):
            assert answer.status_code in (status if isinstance(status, tuple) else (status,))
            told = cors(answer)
            assert told["access-control-allow-origin"] == APP
            assert "access-control-allow-credentials" not in told
            exposed = split(told["access-control-expose-headers"])
            assert {"etag", "event-position", "ratelimit", "retry-after", "x-request-id"} <= exposed
            # a login's tokens are for its page's script; a cookie is for no script
            assert "set-cookie" not in exposed


async def test_a_page_of_an_allowed_origin_logs_in_and_calls_with_a_token(make_settings: MakeSettings) -> None:
    app = create_command_app(make_settings("muster_command", allowed_origins=APP))
    async with app.router.lifespan_context(app):
        admin = visitor(app, token=token_of())
        body: dict[str, Any] = {"email": EMAIL, "password": "sesame-opens-the-rock"}
        created = await admin.post("/users", json=body, headers={"Origin": APP})
        assert created.status_code == 201
        assert created.headers["access-control-allow-origin"] == APP
        page = visitor(app)
        page.headers["Origin"] = APP
        answer = await log_in(page)
        assert answer.headers["access-control-allow-origin"] == APP
        token = answer.json()["access_token"]
        for request, status in ((("GET", "/sessions"), 200), (("PATCH", "/users/me"), 200), (("POST", "/users"), 403)):
            json = None if request[0] == "GET" else {} if status == 200 else {"email": "x@example.com"}
            answer = await page.request(*request, json=json, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == APP
        for wrong in ("wrong-password", ""):
            assert (await log_in(page, password=wrong)).headers["access-control-allow-origin"] == APP


async def test_a_page_elsewhere_is_answered_but_cannot_read(make_settings: MakeSettings) -> None:
    """A token in a header is no ambient right: CORS alone keeps its answer from the other page."""
    app = create_query_app(make_settings("muster_query", allowed_origins=APP))
    async with app.router.lifespan_context(app):
        answer = await visitor(app).get("/users", headers=authorized() | {"Origin": EVIL})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in cors(answer)
