from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import structlog

from command_api.app import create_app
from runtime.settings import settings_from_environment
from tests.apps import client_of
from tests.databases import CHEAP_ARGON2, TOKEN


@pytest.fixture
async def stranded(key_files: dict[str, Path]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a command API without a database: what it refuses, it refuses before it asks the log."""
    settings = settings_from_environment(
        muster_mode="test",
        database_url="postgresql://127.0.0.1:1/nowhere",
        development_token=TOKEN,
        relay=False,
        **key_files,
        **CHEAP_ARGON2,
    )
    async with client_of(create_app(settings)) as client:
        yield client


@pytest.fixture
def plain_logs() -> Iterator[None]:
    """Log lines as the processes write them, without structlog's rich tracebacks (which show every local value)."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )
    yield
    structlog.reset_defaults()
