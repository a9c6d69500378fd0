"""What each refusal of a command is in HTTP: the one place that knows both."""

from fastapi import FastAPI, Request, Response

from command_api.decide import (
    MAX_ATTRIBUTES,
    AttributesTooLarge,
    UserExists,
    UserGone,
    UserUnknown,
    VersionMismatch,
)
from command_api.handler import EmailIsTaken, KeyIsBusy, KeyWasReused
from identity.passwords import PasswordTooLong, PasswordTooShort
from runtime.problems import Fault, Problem, problem_response

REFUSALS = (
    AttributesTooLarge,
    EmailIsTaken,
    KeyIsBusy,
    KeyWasReused,
    PasswordTooLong,
    PasswordTooShort,
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
        case AttributesTooLarge():
            fault = Fault(
                detail=f"must have at most {MAX_ATTRIBUTES} bytes as JSON",
                code="too_large",
                pointer="#/attributes",
            )
            return Problem(422, "invalid", "The request does not fit: see errors.", faults=[fault])
        case PasswordTooShort() | PasswordTooLong():
            code = "password_too_short" if isinstance(error, PasswordTooShort) else "password_too_long"
            fault = Fault(detail=str(error), code=code, pointer="#/password")
            return Problem(422, "invalid", "The request does not fit: see errors.", faults=[fault])
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


def answer_refusals(app: FastAPI) -> None:
    async def refused(_: Request, error: Exception) -> Response:
        return problem_response(problem_of(error))

    for kind in REFUSALS:
        app.add_exception_handler(kind, refused)
