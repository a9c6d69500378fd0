from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from fastapi import FastAPI

from command_api.app import create_app
from tests.databases import MakeSettings
from tests.logins import visitor
from tests.tokens import token_of

Visit = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def command_app(make_settings: MakeSettings) -> AsyncIterator[FastAPI]:
    """The command API, started in the test's own process without a relay."""
    app = create_app(make_settings("muster_command"))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def visit(command_app: FastAPI) -> Visit:
    """Come to the command API as somebody: visit("10.0.0.1", token=...)."""

    def come(address: str = "10.0.0.1", *, token: str | None = None) -> httpx.AsyncClient:
        return visitor(command_app, address, token=token)

    return come


@pytest.fixture
def admin(command_app: FastAPI) -> httpx.AsyncClient:
    """An administrator of the command API."""
    return visitor(command_app, "10.9.9.9", token=token_of())
