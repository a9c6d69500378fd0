"""The apps in the test's own process, over real Postgres: for what HTTP says, without a server's start."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from command_api.app import create_app as create_command_app
from query_api.app import create_app as create_query_app
from tests.databases import MakeSettings
from tests.plain_http import PLAIN
from tests.tokens import authorized


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://muster",
            headers=authorized(),
            timeout=30,
            verify=PLAIN,
            trust_env=False,
        ) as client:
            yield client


class Caller:
    """Calls an app from Hypothesis's synchronous world, all on one event loop."""

    def __init__(self, runner: asyncio.Runner, client: httpx.AsyncClient) -> None:
        self.runner = runner
        self.client = client

    def call(self, method: str, path: str, **rest: Any) -> httpx.Response:  # noqa: ANN401 - what httpx takes
        return self.runner.run(self.client.request(method, path, **rest))


@contextmanager
def calling(app: FastAPI) -> Generator[Caller]:
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        entered = client_of(app)
        client = runner.run(entered.__aenter__())
        stack.callback(lambda: runner.run(entered.__aexit__(None, None, None)))
        yield Caller(runner, client)


@pytest.fixture
async def commands(make_settings: MakeSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the command API, without a relay."""
    async with client_of(create_command_app(make_settings("muster_command"))) as client:
        yield client


@pytest.fixture
async def queries(make_settings: MakeSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the query API."""
    async with client_of(create_query_app(make_settings("muster_query"))) as client:
        yield client
