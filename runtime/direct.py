"""The routes that most requests are for, reached without the framework's way to them.

An endpoint that is marked `direct` stays a route of its FastAPI app: documented, guarded and answered there. Here a
plain request for it is given to it straight away, by a plan of its arguments (`runtime.arguments`). Every other request
takes the app's own way, which answers alike.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar, cast

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.arguments import Asked, NotPlain, Plan

MARK: Final = "__muster_direct__"
READING: Final = frozenset({"GET", "HEAD"})
JSON: Final = frozenset({b"application/json", b"application/merge-patch+json"})

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Answer = Callable[[Request, Exception], Awaitable[Response]]


def direct(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint whose plain requests reach it directly. It answers with a Response."""
    setattr(endpoint, MARK, True)
    return endpoint


class DirectRoutes:
    """The ASGI layer that answers plain requests for an app's marked endpoints; the app within answers all others.

    Made when the app starts, which raises TypeError for an endpoint that cannot be reached so.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._within = app
        self._table: _Table | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._table is None and scope["type"] in {"http", "lifespan"}:
            self._table = _Table(scope["app"])
        if scope["type"] == "http" and self._table is not None and (found := self._table.find(scope)) is not None:
            route, parameters = found
            if (again := await route.answer(scope, parameters, receive, send)) is None:
                return
            receive = again
        await self._within(scope, receive, send)


class _Table:
    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._exact: dict[tuple[str, str], _Direct] = {}
        self._under: dict[tuple[str, str], _Direct] = {}
        for context in iter_route_contexts(app.routes):
            if getattr(context.endpoint, MARK, False):
                self._add(context)

    def find(self, scope: Scope) -> "tuple[_Direct, dict[str, str]] | None":
        """The route that a request may be a plain one for, and the parameters in its path."""
        if self._app.dependency_overrides:
            return None
        method, path = scope["method"], scope["path"]
        if (found := self._exact.get((method, path))) is not None:
            return found, {}
        above, _, last = path.rpartition("/")
        if (found := self._under.get((method, above))) is not None:
            return found, {found.parameter: last}
        return None

    def _add(self, context: RouteContext) -> None:
        route, path = context.original_route, context.path or ""
        if not isinstance(route, APIRoute):
            raise TypeError(f"{path} is no route of an endpoint")
        found = _Direct(self._app, route, context)
        above, _, last = path.rpartition("/")
        for method in context.methods or ():
            if "{" not in path:
                self._exact[method, path] = found
            elif "{" not in above and last == f"{{{found.parameter}}}":
                self._under[method, above] = found
            else:
                raise TypeError(f"{path} has more than its last part as a parameter")


class _Direct:
    def __init__(self, app: FastAPI, route: APIRoute, context: RouteContext) -> None:
        self._app = app
        self._route = route
        self._endpoint = route.endpoint
        try:
            self._plan = Plan(context.dependant)
        except NotPlain:
            raise TypeError(f"{context.path} takes what no plan can give") from None
        self.parameter = next((field.alias for field in context.dependant.path_params), "")

    async def answer(self, scope: Scope, parameters: dict[str, str], receive: Receive, send: Send) -> Receive | None:
        """Answer a plain request; of any other, give what its messages can be received from again."""
        reading = _Reading(receive)
        known = {"app": self._app, "route": self._route, "endpoint": self._endpoint, "path_params": parameters}
        request = _ReadRequest({**scope, **known}, reading.receive)
        headers = dict(reversed(scope["headers"]))
        try:
            response = await self._respond(request, headers, reading)
        except NotPlain:
            return reading.receive
        except BaseException:
            # what the frame tells of it names the route, however it ended
            scope.update(known)
            raise
        scope.update(known)
        await response(request.scope, receive, send)
        return None

    async def _respond(self, request: "_ReadRequest", headers: Mapping[bytes, bytes], reading: "_Reading") -> Response:
        try:
            document = await self._document(request, reading)
            arguments = await self._plan.arguments(Asked(request, headers, request.path_params, document, []))
            return await self._endpoint(**arguments)
        except NotPlain:
            raise
        except Exception as error:
            answer = _handler(self._app, error)
            if answer is None:
                raise
            return await answer(request, error)

    async def _document(self, request: "_ReadRequest", reading: "_Reading") -> Any:  # noqa: ANN401 - any JSON
        if request.method in READING:
            return None
        # even where there is to be none: what was sent is bounded, and part of what an idempotency key stands for
        request.read = await reading.body()
        if not self._plan.takes_body:
            return None
        if not request.is_json:
            raise NotPlain
        try:
            return orjson.loads(request.read)
        except orjson.JSONDecodeError:
            raise NotPlain from None


class _ReadRequest(Request):
    """One whose body was read before."""

    read = b""

    async def body(self) -> bytes:
        return self.read

    @property
    def is_json(self) -> bool:
        kinds = [value for name, value in self.scope["headers"] if name == b"content-type"]
        return len(kinds) == 1 and kinds[0] in JSON


class _Reading:
    """Reads a body in such a way that it can be received again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._again: deque[Message] = deque()

    async def body(self) -> bytes:
        """Raises NotPlain when the caller went away."""
        while True:
            message = await self._receive()
            self._again.append(message)
            if message["type"] != "http.request":
                raise NotPlain
            if not message.get("more_body", False):
                return b"".join(message.get("body", b"") for message in self._again)

    async def receive(self) -> Message:
        return self._again.popleft() if self._again else await self._receive()


def _handler(app: FastAPI, error: Exception) -> Answer | None:
    for kind in type(error).__mro__:
        if (found := app.exception_handlers.get(kind)) is not None:
            return cast("Answer", found)
    return None
