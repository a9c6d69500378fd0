"""Logging in over HTTP, from whatever address a test chooses."""

from typing import Any
from uuid import UUID

import httpx
import psycopg
from fastapi import FastAPI

from events.keyring import Digester
from identity.sessions import hash_of
from runtime.ids import new_id
from tests.plain_http import PLAIN
from tests.tokens import EMAIL_INDEX_KEY
from tests.waiting import aeventually

EMAIL = "ada@example.com"
PASSWORD = "sesame-opens-the-rock"
CLIENT_SECRET = "a service's secret: 100% & more"
DIGESTER = Digester(EMAIL_INDEX_KEY)


def visitor(app: FastAPI, address: str = "10.0.0.1", *, token: str | None = None) -> httpx.AsyncClient:
    """Somebody at this network address, whose client keeps cookies as a browser does."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, raise_app_exceptions=False, client=(address, 1)),
        base_url="https://muster",
        headers={} if token is None else {"Authorization": f"Bearer {token}"},
        timeout=30,
        verify=PLAIN,
        trust_env=False,
    )


async def log_in(
    client: httpx.AsyncClient, email: str = EMAIL, password: str = PASSWORD, **fields: str
) -> httpx.Response:
    return await client.post("/login", data={"username": email, "password": password, **fields})


async def token_from(client: httpx.AsyncClient, email: str = EMAIL, password: str = PASSWORD, **fields: str) -> str:
    """The access token of a login that succeeds."""
    answer = await log_in(client, email, password, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]


async def until_void(client: httpx.AsyncClient, path: str = "/sessions") -> None:
    """Wait until the client's token is good for nothing any more: revocations are heeded within a second."""

    async def refused() -> bool:
        return (await client.get(path)).status_code == 401

    await aeventually(refused, what="the token being void", timeout=5)


def oauth_error(answer: httpx.Response, status: int) -> str:
    """The error code of a refusal by RFC 6749, section 5.2, which is a problem (RFC 9457) as well."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["detail"] == problem["error_description"]
    assert problem["type"].startswith("urn:muster:problem:")
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem["error"]


def make_client(
    owner: psycopg.Connection[dict[str, Any]], *scopes: str, name: str = "billing", secret: str = CLIENT_SECRET
) -> UUID:
    """A service that may log in with its secret."""
    client_id = new_id()
    owner.execute(
        "INSERT INTO identity.clients (id, name, secret_hash, scopes) VALUES (%s, %s, %s, %s)",
        (client_id, name, hash_of(secret), list(scopes)),
    )
    return client_id
