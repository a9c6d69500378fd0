from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI

from command_api.app import create_app as create_command_app
from projector.app import create_app as create_projector_app
from query_api.app import create_app as create_query_app
from runtime.settings import Settings, settings_from_environment
from tests.databases import CHEAP_ARGON2

APPS: dict[str, Callable[[Settings], FastAPI]] = {
    "command": create_command_app,
    "query": create_query_app,
    "projector": create_projector_app,
}


@pytest.fixture(params=sorted(APPS))
def app(request: pytest.FixtureRequest, key_files: dict[str, Path]) -> FastAPI:
    """Each process's app, not started: for what it says about itself."""
    settings = settings_from_environment(
        muster_mode="test",
        database_url="postgresql://127.0.0.1:1/nowhere",
        relay=False,
        **key_files,
        **CHEAP_ARGON2,
    )
    return APPS[request.param](settings)
