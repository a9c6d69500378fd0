"""The reads that are asked for most, answered without what FastAPI does anew for every request."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl
from uuid import UUID

from fastapi import APIRouter, FastAPI, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from identity.access_tokens import Caller, InvalidToken
from identity.door import Door
from identity.guard import required_scopes
from query_api.freshness import Freshness, wanted_of
from query_api.listing import Listing
from query_api.routes import list_answer, user_answer
from runtime.failures import Unavailable
from runtime.problems import Problem, problem_of, problem_response

LIST: Final = "/users"
USER: Final = re.compile(r"/users/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
BEARER: Final = b"Bearer "
POSITION: Final = re.compile(rb"[0-9]{1,18}")


class _NotPlain(Exception):
    """The routes are to decide."""


@dataclass(slots=True, kw_only=True)
class _Headers:
    """Those that mean something to a read."""

    token: str = ""
    position: int | None = None
    prefer: list[str] = field(default_factory=list[str])
    if_none_match: list[str] = field(default_factory=list[str])


class PlainReads:
    """An ASGI layer before the routes of users: answers GET /users/{id} and GET /users as they do.

    It takes a request only if nothing about it is unusual. Any other - written in another way, of a former moment, from
    somebody who is not admitted, for a user who is not there - goes to the routes as it came, and they decide.
    """

    def __init__(self, app: ASGIApp, *, router: APIRouter) -> None:
        self._app = app
        routes = {route.path: route for route in router.routes if isinstance(route, APIRoute)}
        self._list, self._user = routes["/users"], routes["/users/{id}"]
        self._scopes = {route.path: required_scopes(route) for route in (self._list, self._user)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(LIST):
            await self._app(scope, receive, send)
            return
        try:
            answer = await self._read(scope)
        except (_NotPlain, InvalidToken):
            await self._app(scope, receive, send)
            return
        except (Problem, Unavailable) as error:
            answer = problem_response(problem_of(error))
        await answer(scope, receive, send)

    async def _read(self, scope: Scope) -> Response:
        app: FastAPI = scope["app"]
        if scope["path"] == LIST:
            listing, headers = _listing(scope["query_string"]), _headers(scope["headers"])
            _choose(scope, self._list, {})
            told = await self._admitted(app, self._list, headers, None)
            return list_answer(await app.state.lists.page(listing), told)
        if (named := USER.fullmatch(scope["path"])) is None or scope["query_string"]:
            raise _NotPlain
        headers, user_id = _headers(scope["headers"]), named[1]
        _choose(scope, self._user, {"id": user_id})
        told = await self._admitted(app, self._user, headers, user_id)
        found = await app.state.model.user(user_id)
        if found is None or found.deleted:
            raise _NotPlain
        return user_answer(found, told, headers.if_none_match)

    async def _admitted(
        self, app: FastAPI, route: APIRoute, headers: _Headers, user_id: str | None
    ) -> Mapping[str, str]:
        """The headers to answer with, once the caller is known and the model has what they wait for."""
        door: Door = app.state.door
        caller: Caller = await door.gatekeeper.admit(headers.token)
        if not self._scopes[route.path] <= caller.scopes:
            raise _NotPlain
        if headers.position is None:
            return {}
        fresh = wanted_of(headers.position, headers.prefer)
        freshness: Freshness = app.state.freshness
        told = await freshness.wait(fresh, UUID(user_id) if user_id is not None else None)
        if fresh.wait:
            # as in the routes: whoever was logged out while waiting is told nothing any more
            await door.gatekeeper.check(caller)
        return told


def _choose(scope: Scope, route: APIRoute, parameters: Mapping[str, str]) -> None:
    """As the router does: metrics and log lines name the route."""
    scope["route"], scope["path_params"] = route, parameters


def _headers(sent: Iterable[tuple[bytes, bytes]]) -> _Headers:
    found = _Headers()
    for name, value in sent:
        if name == b"authorization":
            if found.token or not value.startswith(BEARER):
                raise _NotPlain
            found.token = value.removeprefix(BEARER).decode("latin-1")
        elif name == b"if-none-match":
            found.if_none_match.append(value.decode("latin-1"))
        elif name == b"min-position":
            if found.position is not None or POSITION.fullmatch(value) is None:
                raise _NotPlain
            found.position = int(value)
        elif name == b"prefer":
            found.prefer.append(value.decode("latin-1"))
    if not found.token:
        raise _NotPlain
    return found


def _listing(query: bytes) -> Listing:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    parameters = dict(pairs)
    try:
        listing = Listing.model_validate(parameters)
    except ValidationError:
        raise _NotPlain from None
    if len(parameters) != len(pairs) or listing.as_of is not None or listing.at_position is not None:
        raise _NotPlain
    return listing
