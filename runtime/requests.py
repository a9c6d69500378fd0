"""What happens to every HTTP request around its route: ids, body limit, metrics, the access log, the last resort."""

import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.correlation import Correlation, current, read_correlation
from runtime.logs import logger
from runtime.problems import INTERNAL, Fault, Problem, problem_response

MAX_BODY = 64 * 1024

REQUESTS = Counter("muster_http_requests_total", "Requests answered", ["method", "route", "status"])
SECONDS = Histogram(
    "muster_http_request_seconds",
    "Time to the end of the answer",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

log = logger(__name__)


class RequestFrame:
    """Outermost ASGI layer, written against the protocol itself since it runs for every request."""

    def __init__(self, app: ASGIApp, *, quiet: frozenset[str], streamed: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._quiet = quiet
        # paths whose bodies are read as they arrive, however long they are
        self._streamed = streamed
        # as found by their labels, which takes a lock and a look-up for each
        self._counters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        correlation = read_correlation(headers)
        outside = current.set(correlation)
        began = time.perf_counter()
        status = 0

        async def send_framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_frame_headers(correlation)]
            await send(message)

        try:
            if scope["path"] in self._streamed:
                await self._app(scope, receive, send_framed)
            elif _announced_length(headers) > MAX_BODY:
                await problem_response(_too_large())(scope, receive, send_framed)
            else:
                await self._app(scope, _bounded(receive), send_framed)
        except Exception:
            log.exception("request failed", method=scope["method"], path=_told(scope))
            if status:  # too late to answer otherwise: the server cuts the connection
                raise
            await problem_response(INTERNAL)(scope, receive, send_framed)
        finally:
            self._account(scope, status, time.perf_counter() - began)
            current.reset(outside)

    def _account(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if route != "unmatched" else "any"
        requests, durations = self._counted(method, route, status)
        requests.inc()
        durations.observe(seconds)
        if scope["path"] not in self._quiet and log.is_enabled_for(logging.INFO):
            log.info(
                "request",
                method=scope["method"],
                path=_told(scope),
                status=status,
                milliseconds=round(seconds * 1000, 2),
            )

    def _counted(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        key = (method, route, status)
        if (counted := self._counters.get(key)) is None:
            counted = REQUESTS.labels(method, route, status), SECONDS.labels(method, route)
            self._counters[key] = counted
        return counted


class StrictJsonRoute(APIRoute):
    """Reads bodies with orjson: NaN, lone surrogates, numbers beyond a double and deep nesting are refused."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


async def refuse_malformed(request: Request) -> None:
    """Refuse a body that StrictJsonRoute could not read; raises a 400 problem.

    FastAPI reads the body before it asks any dependency: this is for one that comes after who is calling is known.
    """
    if (error := getattr(request.state, "malformed", None)) is not None:
        detail = f"not valid JSON: {error.msg}"
        fault = Fault(detail=detail, code="malformed_json", pointer="#")
        raise Problem(400, "malformed_json", f"The body is {detail}", faults=[fault])


class _StrictRequest(Request):
    async def json(self) -> Any:  # noqa: ANN401 - a JSON document is of any type
        try:
            return orjson.loads(await self.body())
        except orjson.JSONDecodeError as error:
            self.state.malformed = error
            return None


def _frame_headers(correlation: Correlation) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-request-id", correlation.request_id.encode()),
        (b"x-correlation-id", correlation.correlation_id.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]


def _told(scope: Scope) -> str:
    """The route with the ids that were asked for: what else somebody puts into a path may be a person's address."""
    told: str = getattr(scope.get("route"), "path", "unmatched")
    for name, value in scope.get("path_params", {}).items():
        with suppress(ValueError):
            told = told.replace(f"{{{name}}}", str(UUID(value)))
    return told


def _announced_length(headers: Mapping[bytes, bytes]) -> int:
    value = headers.get(b"content-length", b"")
    return int(value[:20]) if value.isdigit() else 0


def _too_large() -> Problem:
    # a new one each time: an exception that is raised again keeps every frame it ever passed
    return Problem(413, "body_too_large", f"A body may have at most {MAX_BODY} bytes.", headers={"Connection": "close"})


def _bounded(receive: Receive) -> Receive:
    received = 0

    async def receive_bounded() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                raise _too_large()
        return message

    return receive_bounded
