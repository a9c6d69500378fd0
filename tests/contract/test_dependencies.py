"""A dependency that is not a coroutine costs every request a hop through a thread pool."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from command_api import routes as command_routes
from query_api import routes as query_routes


def calls(dependant: Dependant) -> Iterator[Any]:
    for needed in dependant.dependencies:
        yield needed.call
        yield from calls(needed)


@pytest.mark.parametrize("router", [command_routes.router, query_routes.router])
def test_every_dependency_of_a_route_is_a_coroutine(router: Any) -> None:  # noqa: ANN401 - an APIRouter
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    assert routes
    for route in routes:
        for call in calls(route.dependant):
            asynchronous = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)
            assert asynchronous, f"{route.path} needs {call}"
