"""The arguments of a FastAPI endpoint, found by a plan that is made once.

FastAPI walks a route's tree of dependencies anew for each request, which takes longer than most of what our endpoints
do. A plan is the same tree laid out as a list of calls. It knows the plain case alone: whatever it does not, or finds
amiss in a request, is FastAPI's, which answers as it would have without.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args
from uuid import UUID

from fastapi import Request, params
from fastapi.dependencies.models import Dependant
from fastapi.security import SecurityScopes
from pydantic import BaseModel

# annotations of header fields whose value is what was sent
TEXT = (str, str | None)


class NotPlain(Exception):
    """The request, or the endpoint, is not one that a plan is for."""


@dataclass(slots=True)
class Asked:
    """A request as a plan looks at it; `results` are those of the calls before.

    Of a header that was sent several times, `headers` has the first.
    """

    request: Request
    headers: Mapping[bytes, bytes]
    path: Mapping[str, str]
    body: Any
    results: list[Any]


Value = Callable[[Asked], Any]
Call = tuple[Callable[..., Awaitable[Any]], tuple[tuple[str, Value], ...]]


class Plan:
    """Calls the dependencies of an endpoint in FastAPI's order, each once, and gives the endpoint's arguments."""

    def __init__(self, dependant: Dependant) -> None:
        """Raises NotPlain for an endpoint with anything that FastAPI alone knows how to come by."""
        self._calls: list[Call] = []
        self._places: dict[object, int] = {}
        self.takes_body = bool(dependant.body_params)
        self._path = [(field.name, _path_value(field)) for field in dependant.path_params]
        self._arguments = self._values(dependant, ())

    async def arguments(self, asked: Asked) -> dict[str, Any]:
        """Raises NotPlain, and whatever the dependencies raise."""
        # first: a path that does not fit may be another route's, which asks other things of its caller
        arguments = {name: value(asked) for name, value in self._path}
        for call, values in self._calls:
            asked.results.append(await call(**{name: value(asked) for name, value in values}))
        for name, value in self._arguments:
            arguments[name] = value(asked)
        return arguments

    def _values(self, dependant: Dependant, scopes: Sequence[str]) -> tuple[tuple[str, Value], ...]:
        if (
            dependant.query_params
            or dependant.cookie_params
            or len(dependant.body_params) > 1
            or dependant.response_param_name
            or dependant.background_tasks_param_name
            or dependant.http_connection_param_name
            or dependant.websocket_param_name
        ):
            raise NotPlain
        values: list[tuple[str, Value]] = []
        for needed in dependant.dependencies:
            place = self._call(needed, (*scopes, *(needed.own_oauth_scopes or ())))
            if needed.name is not None:
                values.append((needed.name, _result(place)))
        values += [(field.name, _header_value(field)) for field in dependant.header_params]
        values += [(field.name, _body_value(field)) for field in dependant.body_params]
        if dependant.request_param_name:
            values.append((dependant.request_param_name, _request))
        if dependant.security_scopes_param_name:
            granted = SecurityScopes(list(dict.fromkeys(scopes)))
            values.append((dependant.security_scopes_param_name, lambda _: granted))
        return tuple(values)

    def _call(self, needed: Dependant, scopes: tuple[str, ...]) -> int:
        """Lay out a dependency's call, unless the same was laid out before; gives the place of its result."""
        call = needed.call
        key = (call, frozenset(scopes))
        if key in self._places and needed.use_cache:
            return self._places[key]
        function = call if inspect.isroutine(call) else getattr(call, "__call__", None)  # noqa: B004 - the method itself
        if call is None or not inspect.iscoroutinefunction(function) or needed.concurrency or needed.path_params:
            raise NotPlain
        values = self._values(needed, scopes)
        self._calls.append((call, values))
        return self._places.setdefault(key, len(self._calls) - 1)


def _request(asked: Asked) -> Request:
    return asked.request


def _result(place: int) -> Value:
    return lambda asked: asked.results[place]


def _path_value(field: Any) -> Value:  # noqa: ANN401 - FastAPI's, which does not export it
    if field.field_info.annotation is not UUID:
        raise NotPlain
    alias = field.alias

    def value(asked: Asked) -> UUID:
        sent = asked.path[alias]
        try:
            found = UUID(sent)
        except ValueError:
            raise NotPlain from None
        # there are other ways to write one
        if len(sent) != 36:  # noqa: PLR2004 - of RFC 9562
            raise NotPlain
        return found

    return value


def _header_value(field: Any) -> Value:  # noqa: ANN401 - as above
    info = field.field_info
    constraints = [found for found in info.metadata if not isinstance(found, params.Header)]
    if info.annotation not in TEXT or constraints or info.is_required() or info.validate_default:
        raise NotPlain
    alias, default = field.alias, field.default
    if alias == field.name:
        alias = alias.replace("_", "-")
    name = alias.lower().encode()

    def value(asked: Asked) -> Any:  # noqa: ANN401 - text, or the default
        sent = asked.headers.get(name)
        return sent.decode("latin-1") if sent is not None else default

    return value


def _body_value(field: Any) -> Value:  # noqa: ANN401 - as above
    if not isinstance(field.field_info, params.Body) or field.field_info.embed or not _is_model(field):
        raise NotPlain

    def value(asked: Asked) -> Any:  # noqa: ANN401 - of the body's type
        found, errors = field.validate(asked.body, {}, loc=("body",))
        if errors:
            raise NotPlain
        return found

    return value


def _is_model(field: Any) -> bool:  # noqa: ANN401 - as above
    kinds = get_args(field.field_info.annotation) or (field.field_info.annotation,)
    return any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)
