"""What each refusal of a command is in HTTP: the one place that knows both."""

from collections.abc import Mapping
from typing import assert_never

from fastapi import FastAPI, Request, Response

from command_api.decide import (
    MAX_ATTRIBUTES,
    AttributesTooLarge,
    UserExists,
    UserGone,
    UserUnknown,
    VersionMismatch,
)
from command_api.handler import EmailIsTaken, KeyIsBusy, KeyWasReused, Outranked
from identity.hashes import UnusableHash
from identity.password_rules import (
    PasswordContainsEmail,
    PasswordNotUnicode,
    PasswordRefused,
    PasswordTooCommon,
    PasswordTooLong,
    PasswordTooShort,
)
from runtime.problems import Fault, Problem, problem_response

PASSWORD_CODES: Mapping[type[PasswordRefused], str] = {
    PasswordContainsEmail: "password_contains_email",
    PasswordNotUnicode: "password_not_unicode",
    PasswordTooCommon: "password_too_common",
    PasswordTooLong: "password_too_long",
    PasswordTooShort: "password_too_short",
}
REFUSALS = (
    AttributesTooLarge,
    EmailIsTaken,
    KeyIsBusy,
    KeyWasReused,
    Outranked,
    PasswordRefused,
    UnusableHash,
    UserExists,
    UserGone,
    UserUnknown,
    VersionMismatch,
)


def problem_of(error: Exception) -> Problem:
    match error:
        case UserUnknown():
            return Problem(404, "user_not_found", "User not found")
        case UserGone():
            return Problem(410, "user_deleted", "User was deleted")
        case UserExists():
            return Problem(409, "user_exists", "A user with this id exists")
        case VersionMismatch():
            fault = Fault(detail=str(error), code="version_mismatch", parameter="If-Match")
            return Problem(
                412,
                "version_mismatch",
                f"The user is at version {error.version}: read it again, then repeat the change.",
                faults=[fault],
                headers={"ETag": f'"{error.version}"'},
            )
        case EmailIsTaken():
            fault = Fault(detail="Email already registered", code="email_taken", pointer="#/email")
            return Problem(409, "email_taken", "Email already registered", faults=[fault])
        case AttributesTooLarge() | PasswordRefused() | UnusableHash():
            return Problem(422, "invalid", "The request does not fit: see errors.", faults=[_unfit(error)])
        case Outranked():
            fault = Fault(detail="give more rights than the caller has", code="outranked", pointer="#/roles")
            return Problem(
                403,
                "outranked",
                "Who has roles that may do more than you, or would get them, is for others to write.",
                faults=[fault],
            )
        case KeyWasReused():
            fault = Fault(
                detail="was used with another request",
                code="idempotency_key_reused",
                parameter="Idempotency-Key",
            )
            return Problem(
                422,
                "idempotency_key_reused",
                "Take a new Idempotency-Key for another request.",
                faults=[fault],
            )
        case KeyIsBusy():
            fault = Fault(detail="is under way", code="idempotency_key_busy", parameter="Idempotency-Key")
            return Problem(
                409,
                "idempotency_key_busy",
                "A request with this Idempotency-Key is under way: repeat this one shortly.",
                faults=[fault],
                headers={"Retry-After": "1"},
            )
        case _:
            raise error


def _unfit(error: AttributesTooLarge | PasswordRefused | UnusableHash) -> Fault:
    match error:
        case AttributesTooLarge():
            return Fault(
                detail=f"must have at most {MAX_ATTRIBUTES} bytes as JSON", code="too_large", pointer="#/attributes"
            )
        case PasswordRefused():
            return Fault(detail=str(error), code=PASSWORD_CODES[type(error)], pointer="#/password")
        case UnusableHash():
            return Fault(detail=str(error), code="unusable_hash", pointer="#/password_hash")
        case _:
            assert_never(error)


def answer_refusals(app: FastAPI) -> None:
    async def refused(_: Request, error: Exception) -> Response:
        return problem_response(problem_of(error))

    for kind in REFUSALS:
        app.add_exception_handler(kind, refused)
