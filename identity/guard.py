from collections.abc import Iterable, Iterator

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from identity.caller import ACCESS_MARK, GATE

# what every process serves to whoever can reach it: its documentation, its health and its counters
OPEN = frozenset({"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc", "/livez", "/readyz", "/metrics"})
OPEN_FILES = frozenset({"/static-offline-docs"})
READING = frozenset({"GET", "HEAD"})


class UnguardedRoute(Exception):
    """A route says neither which scopes it needs nor that it is for anyone."""


def check_routes(app: FastAPI) -> None:
    """Raises UnguardedRoute: an app with a route that nobody thought about does not start."""
    for context in iter_route_contexts(app.routes):
        if not _thought_about(context):
            raise UnguardedRoute(
                f"{sorted(context.methods or ())} {context.path}: declare what it needs (identity.caller.needs)"
            )
    # FastAPI asks these last of all, and lists them nowhere
    if any(getattr(router, "_low_priority_routes", ()) for router in _routers(app.router)):
        raise UnguardedRoute("app.frontend() serves files to anyone")


def guarded_routes(app: FastAPI) -> Iterator[RouteContext]:
    """Every route but the open ones, those of included routers as they are served: with their prefix."""
    return (context for context in iter_route_contexts(app.routes) if not _open(context))


def access_of(route: APIRoute | RouteContext) -> str | None:
    """What the endpoint's mark says: anyone, caller, or nothing."""
    return getattr(route.endpoint, ACCESS_MARK, None)


def required_scopes(route: APIRoute | RouteContext) -> frozenset[str]:
    return frozenset(scope for needed in _gates(route.dependant) for scope in needed.own_oauth_scopes or ())


def _thought_about(context: RouteContext) -> bool:
    if _open(context):
        return True
    if not isinstance(context.original_route, APIRoute):
        # a mounted app, a WebSocket or a bare route takes no dependency: nothing can guard it
        return False
    match access_of(context):
        case "anyone":
            return True
        case "caller":
            return any(_gates(context.dependant))
        case _:
            return bool(required_scopes(context))


def _open(context: RouteContext) -> bool:
    route = context.original_route
    if isinstance(route, Mount):
        return context.path in OPEN_FILES and isinstance(route.app, StaticFiles)
    return isinstance(route, Route) and context.path in OPEN and set(context.methods or ()) <= READING


def _gates(dependant: Dependant) -> Iterator[Dependant]:
    for needed in dependant.dependencies:
        if needed.call is GATE:
            yield needed
        yield from _gates(needed)


def _routers(router: object) -> Iterator[object]:
    yield router
    included: Iterable[object] = getattr(router, "routes", ())
    for route in included:
        if (inner := getattr(route, "original_router", None)) is not None:
            yield from _routers(inner)
