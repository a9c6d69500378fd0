"""The feed's client: pages, tokens that expire, and an API that is away for a while."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs

import httpx
import orjson
import pytest

from muster_subscriber import Kind
from muster_subscriber.feed import ClientCredentials, Feed, Refused
from muster_subscriber.testing import MusterUsers, StoredRecord
from tests.plain_http import PLAIN

Answer = Callable[[httpx.Request], httpx.Response]
PER_PAGE = 3


def cloud_event(record: StoredRecord) -> dict[str, Any]:
    attributes = {name.removeprefix("ce_"): value.decode() for name, value in record.headers}
    return {**attributes, "data": orjson.loads(record.value or b"")}


class Api:
    """Answers as the APIs do, after what it was told to answer first."""

    def __init__(self, users: MusterUsers) -> None:
        self.users = users
        self.first: list[int] = []
        self.tokens = 0
        self.asked: list[str] = []
        self.unreadable: set[int] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        if self.first:
            return httpx.Response(self.first.pop(0))
        if request.url.path == "/login":
            form = parse_qs(request.content.decode())
            if form["client_secret"] != ["secret"]:
                return httpx.Response(401)
            self.tokens += 1
            return httpx.Response(200, json={"access_token": f"token-{self.tokens}", "expires_in": 600})
        if request.headers["Authorization"] != f"Bearer token-{self.tokens}":
            return httpx.Response(401)
        return self._page(request.url.params)

    def _page(self, params: httpx.QueryParams) -> httpx.Response:
        after, key = int(params["after"]), params["user"].encode()
        found = [one for one in self.users.events if one.key == key and one.offset > after][:PER_PAGE]
        through = found[-1].offset if len(found) == PER_PAGE else len(self.users.events)
        headers = {"Event-Position": str(through)}
        if through < len(self.users.events):
            headers["Link"] = f'</events?after={through}>; rel="next"'
        body = [cloud_event(one) for one in found]
        for one in body:
            if int(one["sequence"]) in self.unreadable:
                del one["data"]
                one["unreadable"] = "no_key"
        return httpx.Response(200, json=body, headers=headers)


@pytest.fixture
def api(muster_users: MusterUsers) -> Api:
    return Api(muster_users)


@pytest.fixture
async def client(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(api), verify=PLAIN, trust_env=False) as client:
        yield client


@pytest.fixture
def feed(client: httpx.AsyncClient) -> Feed:
    token = ClientCredentials("http://command/", "billing", "secret", client=client)
    return Feed("http://query/", token, client=client)


async def test_a_range_is_gathered_over_pages(feed: Feed, muster_users: MusterUsers, api: Api) -> None:
    ada, grace = muster_users.create(), muster_users.create()
    for _ in range(9):
        muster_users.update(ada)
        muster_users.update(grace)
    found = await feed.between(ada, after=2, before=9)
    assert [(event.user_id, event.version, event.kind) for event in found] == [
        (ada, version, Kind.UPDATED) for version in range(3, 9)
    ]
    assert api.asked == ["POST /login", "GET /events", "GET /events", "GET /events"]
    assert [event.version for event in await feed.between(grace, after=0, before=2)] == [1]
    assert await feed.between(ada, after=10, before=99) == []


async def test_what_the_log_cannot_read_is_left_out(feed: Feed, muster_users: MusterUsers, api: Api) -> None:
    ada = muster_users.create()
    for _ in range(3):
        muster_users.update(ada)
    api.unreadable = {2}
    assert [event.version for event in await feed.between(ada, after=0, before=4)] == [1, 3]


async def test_a_token_that_is_void_is_followed_by_another(feed: Feed, muster_users: MusterUsers, api: Api) -> None:
    ada = muster_users.create()
    assert len(await feed.between(ada, after=0, before=2)) == 1
    api.tokens = 7
    assert len(await feed.between(ada, after=0, before=2)) == 1
    assert api.asked == ["POST /login", "GET /events", "GET /events", "POST /login", "GET /events"]


async def test_an_api_that_is_away_is_asked_again(
    feed: Feed, muster_users: MusterUsers, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    ada = muster_users.create()
    api.first = [503]
    assert len(await feed.between(ada, after=0, before=2)) == 1
    api.first = [429, 500]
    assert len(await feed.between(ada, after=0, before=2)) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3


@pytest.mark.parametrize("status", [403, 404, 422])
async def test_a_refusal_is_an_error(feed: Feed, muster_users: MusterUsers, api: Api, status: int) -> None:
    ada = muster_users.create()
    await feed.between(ada, after=0, before=2)
    api.first = [status]
    with pytest.raises(Refused, match=f"^feed: {status}$"):
        await feed.between(ada, after=0, before=2)


async def test_a_wrong_secret_is_an_error(client: httpx.AsyncClient, muster_users: MusterUsers) -> None:
    feed = Feed("http://query", ClientCredentials("http://command", "billing", "wrong", client=client), client=client)
    with pytest.raises(Refused, match=r"^login: 401$"):
        await feed.between(muster_users.create(), after=0, before=2)
