"""A dependency that is not a coroutine costs every request a hop through a thread pool."""

import inspect
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts


def calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for needed in dependant.dependencies:
        yield from calls(needed)


def test_every_route_and_its_dependencies_are_coroutines(app: FastAPI) -> None:
    routes = [route for route in iter_route_contexts(app.routes) if isinstance(route.original_route, APIRoute)]
    assert {"/livez", "/readyz", "/metrics"} <= {route.path for route in routes}
    for route in routes:
        for call in calls(route.dependant):
            asynchronous = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)
            assert asynchronous, f"{route.path} needs {call}"
