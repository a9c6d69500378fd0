import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from command_api.app import create_app as create_command_app
from events.keyring import Kek
from identity.cookies import ACCESS
from identity.guard import access_of, guarded_routes
from identity.signing_keys import wrapped_key
from query_api.app import create_app as create_query_app
from runtime.ids import new_id
from runtime.problems import MEDIA_TYPE
from tests.apps import client_of
from tests.calls import create
from tests.databases import MakeSettings
from tests.hostile_tokens import Circumstances, hostile_tokens
from tests.logins import CLIENT_SECRET, EMAIL, PASSWORD, log_in, make_client
from tests.people import ADA_ID
from tests.tokens import KEK, token_of
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]
Headers = list[tuple[bytes, bytes]]

CHALLENGE: Final = 'Bearer realm="muster"'
INVALID: Final = f'{CHALLENGE}, error="invalid_token"'
# RFC 6265, section 4.1.1
COOKIE_VALUE: Final = re.compile(rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route that takes a token, and a client of the app that has it; whatever the path names is a UUID."""

    client: httpx.AsyncClient
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    async def call(self, headers: Headers) -> httpx.Response:
        typed = [(b"Content-Type", b"application/json"), *headers]
        content = b'{"email": "hostile@example.com"}' if self.method in {"POST", "PUT", "PATCH"} else None
        if self.path == "/logout":
            content, typed = None, headers
        return await self.client.request(self.method, self.path, content=content, headers=typed)


@pytest.fixture
async def routes(make_settings: MakeSettings) -> AsyncIterator[list[Route]]:
    """Every protected route of both APIs, and the one of a public kind that ends the caller's own session."""
    apps = (create_command_app(make_settings("muster_command")), create_query_app(make_settings("muster_query")))
    async with AsyncExitStack() as stack:
        found: list[Route] = []
        for app in apps:
            client = await stack.enter_async_context(client_of(app))
            del client.headers["authorization"]
            found += _routes(app, client)
        assert {str(route) for route in found} >= {"POST /users", "GET /users", "GET /users/me", "POST /logout"}
        yield found


def _routes(app: FastAPI, client: httpx.AsyncClient) -> list[Route]:
    return [
        Route(client=client, method=method, path=re.sub(r"\{\w+\}", str(ADA_ID), route.path or ""))
        for route in guarded_routes(app)
        if access_of(route) != "anyone" or route.path == "/logout"
        for method in sorted(route.methods or ())
    ]


async def circumstances(routes: list[Route], owner: Owner) -> Circumstances:
    """Secrets that were really given out, revocations and a retired key, as the database now has them."""
    commands = next(route.client for route in routes if str(route) == "POST /users")
    commands.headers["authorization"] = f"Bearer {token_of()}"
    await create(commands, EMAIL, password=PASSWORD, roles=["admin"])
    del commands.headers["authorization"]
    login = await log_in(commands)
    make_client(owner, "users:write")
    retired = Ed25519PrivateKey.generate()
    key = wrapped_key(retired, Kek(KEK))
    owner.execute(
        "INSERT INTO identity.signing_keys (kid, public_key, wrapped, kek_id, signs_from, verifies_until)"
        " VALUES (%s, %s, %s, %s, 'epoch', now() - interval '1 second')",
        (key.kid, key.public_key, key.wrapped, key.kek_id),
    )
    subject, session = new_id(), new_id()
    for revoked in (new_id(), session, subject):
        owner.execute("SELECT identity.revoke(%s, false)", (revoked,))
    for route in routes:
        if route.method == "GET":
            await aeventually(partial(refuses, route, subject), what=f"{route} knows of the newest revocation")
    return Circumstances(
        revocation=3,
        revoked_subject=subject,
        revoked_session=session,
        retired_key=retired,
        refresh_token=login.json()["refresh_token"],
        client_secret=CLIENT_SECRET,
        password=PASSWORD,
    )


async def refuses(route: Route, subject: UUID) -> bool:
    answer = await route.call([(b"Authorization", f"Bearer {token_of(subject)}".encode())])
    return answer.status_code == 401


def all_that_is_written(owner: Owner) -> list[dict[str, Any]]:
    return owner.execute(
        "SELECT h.position, r.number, (SELECT count(*) FROM log.events) AS events,"
        " (SELECT count(*) FROM log.commands) AS commands,"
        " (SELECT json_agg(s ORDER BY s.id) FROM identity.sessions s) AS sessions"
        " FROM log.head h, identity.revocation_head r"
    ).fetchall()


def wrong(answer: httpx.Response, *, code: str = "invalid_token", challenge: str = INVALID) -> str | None:
    """What is wrong with this refusal of a token; None for a good one."""
    if answer.status_code != 401:
        return f"was answered {answer.status_code}: {answer.text[:200]}"
    told = answer.headers.get("www-authenticate"), answer.headers["content-type"], answer.json()["errors"][0]["code"]
    return None if told == (challenge, MEDIA_TYPE, code) else f"was refused by {told}"


async def failures(routes: list[Route], tokens: Mapping[str, bytes], *, cookie: bool) -> list[str]:
    found: list[str] = []
    for route in routes:
        for name, token in tokens.items():
            sent = (b"Cookie", f"{ACCESS}=".encode() + token) if cookie else (b"Authorization", b"Bearer " + token)
            if (complaint := wrong(await route.call([sent]))) is not None:
                found.append(f"{route}: {name} {complaint}")
    return found


async def test_no_route_admits_a_hostile_token(routes: list[Route], owner: Owner) -> None:
    tokens = hostile_tokens(await circumstances(routes, owner))
    before = all_that_is_written(owner)
    assert len(tokens) >= 200
    assert await failures(routes, tokens, cookie=False) == []
    assert all_that_is_written(owner) == before


async def test_no_route_admits_a_hostile_token_as_a_cookie(routes: list[Route], owner: Owner) -> None:
    tokens = hostile_tokens(await circumstances(routes, owner))
    writable = {name: token for name, token in tokens.items() if COOKIE_VALUE.fullmatch(token)}
    before = all_that_is_written(owner)
    assert len(writable) >= 200
    assert await failures(routes, writable, cookie=True) == []
    assert all_that_is_written(owner) == before


async def test_every_route_admits_a_good_token(routes: list[Route]) -> None:
    for route in routes:
        token = token_of().encode()
        for sent in ((b"Authorization", b"Bearer " + token), (b"Cookie", f"{ACCESS}=".encode() + token)):
            answer = await route.call([sent])
            assert answer.status_code < 500, f"{route}: {answer.text}"
            assert answer.status_code != 401, f"{route}: {answer.text}"


GOOD: Final = b"Bearer <good>"


@pytest.mark.parametrize(
    "sent",
    [
        [],
        [b""],
        [b" \t "],
        [b"Bearer"],
        [b"Bearer "],
        [b"Bearer    "],
        [b"Bearer \t"],
        [b"<good>"],
        [b"Basic <good>"],
        [b"Token <good>"],
        [b"DPoP <good>"],
        [b"Bearers <good>"],
        [b"Bearer:<good>"],
        [b"Bearer=<good>"],
        [b"Bearer,<good>"],
        [b"Bearer\t<good>"],
        [b"Bearer\xa0<good>"],
        [b"\x0bBearer <good>"],
        [b"Basic YTpi, Bearer <good>"],
        [GOOD, GOOD],
        [GOOD, b"Bearer bad"],
        [b"Bearer bad", GOOD],
        [b"", GOOD],
        [GOOD, b""],
        [b"Basic YTpi", GOOD],
    ],
)
async def test_what_is_no_single_bearer_token_is_none(routes: list[Route], sent: list[bytes]) -> None:
    for route in routes:
        token = token_of().encode()
        answer = await route.call([(b"Authorization", value.replace(b"<good>", token)) for value in sent])
        complaint = wrong(answer, code="unauthenticated", challenge=CHALLENGE)
        assert complaint is None, f"{route} {complaint}"


@pytest.mark.parametrize(
    "sent",
    [
        b"bearer <good>",
        b"BEARER <good>",
        b"bEaReR <good>",
        b"Bearer   <good>",
        b"Bearer <good> \t",
        b"\t Bearer <good>",
    ],
)
async def test_a_good_token_is_known_by_any_spelling_of_its_scheme(routes: list[Route], sent: bytes) -> None:
    for route in routes:
        answer = await route.call([(b"Authorization", sent.replace(b"<good>", token_of().encode()))])
        assert answer.status_code != 401, f"{route}: {answer.text}"


@pytest.mark.parametrize(("sent", "code"), [(b"Bearer bad", "invalid_token"), (b"Basic YTpi", "unauthenticated")])
async def test_a_good_cookie_makes_up_for_no_bad_header(routes: list[Route], sent: bytes, code: str) -> None:
    for route in routes:
        cookie = f"{ACCESS}={token_of()}".encode()
        answer = await route.call([(b"Authorization", sent), (b"Cookie", cookie)])
        challenge = INVALID if code == "invalid_token" else CHALLENGE
        complaint = wrong(answer, code=code, challenge=challenge)
        assert complaint is None, f"{route} {complaint}"


@pytest.mark.parametrize("place", ["access_token", "token", "authorization", "jwt"])
async def test_a_token_in_the_address_is_none(routes: list[Route], place: str) -> None:
    for route in routes:
        answer = await route.client.request(route.method, route.path, params={place: token_of()})
        assert wrong(answer, code="unauthenticated", challenge=CHALLENGE) is None, f"{route}: {answer.text}"


@pytest.mark.parametrize("body", [b"{", b"[1,", b"\xff", b'{"email": NaN}', b"nothing"])
async def test_a_body_that_cannot_be_read_tells_a_stranger_nothing(routes: list[Route], body: bytes) -> None:
    typed = (b"Content-Type", b"application/json")
    for route in routes:
        if route.path.startswith("/users") and route.method in {"POST", "PUT", "PATCH"}:
            call = partial(route.client.request, route.method, route.path, content=body)
            assert wrong(await call(headers=[typed, (b"Authorization", b"Bearer bad")])) is None, f"{route}"
            complaint = wrong(await call(headers=[typed]), code="unauthenticated", challenge=CHALLENGE)
            assert complaint is None, f"{route} {complaint}"
