"""Errors on the wire: application/problem+json (RFC 9457) with `errors: [{detail, pointer | parameter, code}]`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPMethod, HTTPStatus
from typing import Any, Final, assert_never
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from runtime.correlation import current
from runtime.failures import OutcomeUnknown, Overloaded, Unavailable
from runtime.logs import logger

MEDIA_TYPE: Final = "application/problem+json"
# a body can be wrong in thousands of places: the answer need not be longer than the request
MAX_FAULTS: Final = 100
# Python before 3.13 has the names of older standards
TITLES: Final = {413: "Content Too Large", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}

log = logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong: `pointer` is a JSON Pointer (RFC 6901) into the body, `parameter` a query or header name."""

    detail: str
    code: str
    pointer: str | None = None
    parameter: str | None = None

    def body(self) -> dict[str, str]:
        found = {"detail": self.detail, "code": self.code}
        if self.pointer is not None:
            found["pointer"] = self.pointer
        if self.parameter is not None:
            found["parameter"] = self.parameter
        return found


class Problem(HTTPException):
    """A refusal that names its status and its faults."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code = code
        self.faults = faults or (Fault(detail=detail, code=code),)
        self.members = members or {}


def title_of(status: int) -> str:
    """The name of a status (RFC 9110, section 15)."""
    return TITLES.get(status) or HTTPStatus(status).phrase


def problem_body(problem: Problem) -> dict[str, Any]:
    found = current.get()
    return {
        "type": f"urn:muster:problem:{problem.code}",
        "title": title_of(problem.status_code),
        "status": problem.status_code,
        "detail": problem.detail,
        "errors": [fault.body() for fault in problem.faults],
        **({"request_id": found.request_id} if found is not None else {}),
        **problem.members,
    }


def problem_response(problem: Problem) -> Response:
    return Response(
        orjson.dumps(problem_body(problem)),
        status_code=problem.status_code,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


INTERNAL = Problem(500, "internal_error", "Something failed here; it is logged under the request id.")


class FaultBody(BaseModel):
    detail: str = Field(examples=["is taken by another user"])
    code: str = Field(examples=["email_taken"])
    pointer: str | None = Field(None, description="JSON Pointer into the request's body", examples=["#/email"])
    parameter: str | None = Field(None, description="query parameter or header", examples=["If-Match"])


class ProblemBody(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(examples=["urn:muster:problem:email_taken"])
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str
    errors: list[FaultBody]
    request_id: str | None = None


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` argument of a route that can answer with these statuses as problems."""
    return {
        status: {
            "description": title_of(status),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
        }
        for status in statuses
    }


def problem_of(error: HTTPException | RequestValidationError | Unavailable | OutcomeUnknown) -> Problem:
    """What a refusal, or a failure of a part that this process needs, is on the wire."""
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return _invalid(error)
        case Unavailable():
            log.warning("unavailable", reason=str(error))
            code = "overloaded" if isinstance(error, Overloaded) else "unavailable"
            return Problem(
                503,
                code,
                "Too much is waiting already; nothing was done. Try again shortly."
                if code == "overloaded"
                else "A part this needs is not answering; nothing was done. Try again shortly.",
                headers={"Retry-After": str(error.retry_after)},
            )
        case OutcomeUnknown():
            log.warning("outcome unknown", reason=str(error))
            return Problem(
                503,
                "outcome_unknown",
                "The change may or may not have been written. Repeat the request with the same "
                "Idempotency-Key: it will take effect once.",
                headers={"Retry-After": str(error.retry_after)},
            )
        case HTTPException():
            phrase = title_of(error.status_code)
            return Problem(
                error.status_code,
                phrase.lower().replace(" ", "_"),
                phrase if error.detail == phrase else str(error.detail),
                headers=error.headers,
            )
        case _:
            assert_never(error)


def answer_with_problems(app: FastAPI) -> None:
    """Turn every refusal of the app and of the router into problem+json."""

    async def refused(request: Request, error: Exception) -> Response:
        match error:
            case HTTPException(status_code=HTTPStatus.METHOD_NOT_ALLOWED):
                allowed = {"Allow": ", ".join(_allowed(app, request))}
                return problem_response(Problem(405, "method_not_allowed", title_of(405), headers=allowed))
            case HTTPException() | RequestValidationError() | Unavailable() | OutcomeUnknown():
                return problem_response(problem_of(error))
            case _:
                raise error

    for kind in (HTTPException, RequestValidationError, Unavailable, OutcomeUnknown):
        app.add_exception_handler(kind, refused)


def _allowed(app: FastAPI, request: Request) -> list[str]:
    """The methods of this path. The router itself names only those of the first route that has the path."""
    return [
        method.value
        for method in HTTPMethod
        if any(route.matches({**request.scope, "method": method.value})[0] is Match.FULL for route in app.router.routes)
    ]


def _invalid(error: RequestValidationError) -> Problem:
    faults: list[Fault] = []
    for found in error.errors()[:MAX_FAULTS]:
        place, *path = found["loc"]
        message = str(found["msg"]).removeprefix("Value error, ")
        if found["type"] == "json_invalid":
            reason = found.get("ctx", {}).get("error", "")
            return Problem(
                400,
                "malformed_json",
                f"The body is not valid JSON: {reason}",
                faults=[Fault(detail=f"not valid JSON: {reason}", code="malformed_json", pointer="#")],
            )
        if place == "body":
            pointer = "#" + "".join(f"/{_pointer_part(str(part))}" for part in path)
            faults.append(Fault(detail=message, code=found["type"], pointer=pointer))
        else:
            faults.append(Fault(detail=message, code=found["type"], parameter=".".join(map(str, path))))
    return Problem(422, "invalid", "The request does not fit: see errors.", faults=faults)


def _pointer_part(key: str) -> str:
    """A key within a JSON Pointer that is written as a URI fragment (RFC 6901, section 6)."""
    return quote(key.replace("~", "~0").replace("/", "~1"), safe="!$&'()*+,;=:@~")
