"""Events that the topic lost, from `GET /events` of the query API."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol
from uuid import UUID

import httpx

from muster_subscriber.contract import Event
from muster_subscriber.decoding import Unreadable, event_of_feed
from muster_subscriber.pacing import delays

BATCH_TYPE: Final = "application/cloudevents-batch+json"
PAGE: Final = 1_000
# seconds before its end in which a token is not used any more
MARGIN: Final = 30.0
UNAUTHORIZED: Final = 401
PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

log = logging.getLogger(__name__)


class Refused(Exception):
    """The API says no, and will say so again: a setting is wrong."""


class Token(Protocol):
    async def __call__(self, *, refused: str | None = None) -> str:
        """An access token; another one than that which was `refused`."""
        ...


@asynccontextmanager
async def _client(given: httpx.AsyncClient | None) -> AsyncGenerator[httpx.AsyncClient]:
    if given is not None:
        yield given
        return
    async with httpx.AsyncClient(timeout=30) as made:
        yield made


async def _answer(ask: Callable[[], Awaitable[httpx.Response]], what: str) -> httpx.Response:
    """Asks until there is an answer that is not about a passing trouble."""
    for delay in delays():
        try:
            answer = await ask()
        except httpx.TransportError as error:
            trouble = type(error).__name__
        else:
            if answer.status_code not in PASSING:
                return answer
            trouble = str(answer.status_code)
        log.warning("%s: %s, again in %.1f s", what, trouble, delay)
        await asyncio.sleep(delay)
    raise AssertionError("delays end")


def _refusal(answer: httpx.Response, what: str) -> Refused:
    return Refused(f"{what}: {answer.status_code}")


class ClientCredentials:
    """Tokens for a service: `POST /login` of the command API with its id and secret (OAuth 2, RFC 6749 section 4.4)."""

    def __init__(
        self, command_url: str, client_id: str, client_secret: str, *, client: httpx.AsyncClient | None = None
    ) -> None:
        self._url = f"{command_url.rstrip('/')}/login"
        self._form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
        self._client = client
        self._token: str | None = None
        self._good_until = 0.0

    async def __call__(self, *, refused: str | None = None) -> str:
        if self._token is None or self._token == refused or time.monotonic() > self._good_until:
            async with _client(self._client) as client:
                answer = await _answer(lambda: client.post(self._url, data=self._form), "login")
            if not answer.is_success:
                raise _refusal(answer, "login")
            told: dict[str, Any] = answer.json()
            self._token = str(told["access_token"])
            self._good_until = time.monotonic() + float(told.get("expires_in", 0)) - MARGIN
        return self._token


class Feed:
    """The feed of the query API. Waits for one that is away; raises Refused.

    The token needs the scope `events:read`. A `client` of one's own may know a certificate authority or a proxy.
    """

    def __init__(self, query_url: str, token: Token, *, client: httpx.AsyncClient | None = None) -> None:
        self._url = f"{query_url.rstrip('/')}/events"
        self._token = token
        self._client = client

    async def between(self, user_id: UUID, *, after: int, before: int) -> list[Event]:
        """A user's events of the versions between these two, in order; what the log cannot read is left out."""
        found: list[Event] = []
        position = 0
        async with _client(self._client) as client:
            while True:
                answer = await self._page(client, {"user": str(user_id), "after": str(position), "limit": str(PAGE)})
                for one in answer.json():
                    try:
                        event = event_of_feed(one)
                    except Unreadable as error:
                        log.warning("the feed has an event of user %s that cannot be read: %s", user_id, error)
                        continue
                    if event.version >= before:
                        return found
                    if event.version > after:
                        found.append(event)
                through = int(answer.headers["Event-Position"])
                if "next" not in answer.links or through <= position:
                    return found
                position = through

    async def _page(self, client: httpx.AsyncClient, query: Mapping[str, str]) -> httpx.Response:
        token = await self._token()
        answer = await self._ask(client, query, token)
        if answer.status_code == UNAUTHORIZED:
            # it may have expired, or be void, before its time
            answer = await self._ask(client, query, await self._token(refused=token))
        if not answer.is_success:
            raise _refusal(answer, "feed")
        return answer

    async def _ask(self, client: httpx.AsyncClient, query: Mapping[str, str], token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", "Accept": BATCH_TYPE}
        return await _answer(lambda: client.get(self._url, params=query, headers=headers), "feed")
