from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from runtime.failures import OutcomeUnknown, Unavailable
from runtime.problems import Problem, problem_of

# answers with tokens or about them are nobody's to keep (RFC 6749, section 5.1)
NO_STORE: Final[Mapping[str, str]] = {"Cache-Control": "no-store", "Pragma": "no-cache"}
# what a refusal that knows nothing of OAuth is called there (RFC 6749, sections 4.1.2.1 and 5.2)
ERRORS: Final[Mapping[int, str]] = {403: "access_denied", 503: "temporarily_unavailable"}


def refused(status: int, error: str, description: str, *, headers: Mapping[str, str] | None = None) -> Problem:
    """A problem with the members of an OAuth error beside its own (RFC 6749, section 5.2)."""
    return Problem(
        status,
        error,
        description,
        headers={**NO_STORE, **(headers or {})},
        members={"error": error, "error_description": description},
    )


class OAuthRoute(APIRoute):
    """Gives every refusal of an endpoint the members of an OAuth error."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_as_oauth(request: Request) -> Response:
            try:
                return await handle(request)
            except (Problem, RequestValidationError, Unavailable, OutcomeUnknown) as error:
                problem = problem_of(error)
                if "error" in problem.members:
                    raise
                raise Problem(
                    problem.status_code,
                    problem.code,
                    problem.detail,
                    faults=problem.faults,
                    headers={**NO_STORE, **(problem.headers or {})},
                    members={
                        **problem.members,
                        "error": ERRORS.get(problem.status_code, "invalid_request"),
                        "error_description": problem.detail,
                    },
                ) from error

        return handle_as_oauth
