"""Who is calling and whether they may: the dependency that every protected route takes."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from fastapi import Request, Security
from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlowPassword, OAuthFlows
from fastapi.security import OAuth2, SecurityScopes

from identity.access_tokens import Caller, InvalidToken
from identity.cookies import ACCESS
from identity.door import Door
from identity.roles import MEANINGS, Scope
from identity.security_log import record
from runtime.problems import Problem

CHALLENGE: Final = 'Bearer realm="muster"'
# where an endpoint that takes no scope says why
ACCESS_MARK: Final = "__muster_access__"
DESCRIBED: Final[dict[str, str]] = {scope.value: meaning for scope, meaning in MEANINGS.items()}

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Gate(OAuth2):
    """Gives the caller of a bearer token (RFC 6750) or of a browser's cookie, who must hold the route's scopes.

    Raises a 401 problem with a challenge, a 403 one for a missing scope, and Unavailable.
    """

    def __init__(self) -> None:
        super().__init__(
            flows=OAuthFlows(
                password=OAuthFlowPassword(tokenUrl="login", scopes=DESCRIBED),
                clientCredentials=OAuthFlowClientCredentials(tokenUrl="login", scopes=DESCRIBED),
            ),
            scheme_name="muster",
            description="Log in at the command API: POST /login",
            auto_error=False,
        )

    async def __call__(self, request: Request, scopes: SecurityScopes) -> Caller:  # pyright: ignore[reportIncompatibleMethodOverride]
        door: Door = request.app.state.door
        token, by_cookie = _token(request)
        if token is None:
            record("access.unauthenticated", **where(request))
            raise Problem(
                401,
                "unauthenticated",
                "Send a token: Authorization: Bearer <token>",
                headers={"WWW-Authenticate": CHALLENGE},
            )
        try:
            caller = await door.gatekeeper.admit(token)
        except InvalidToken as error:
            raise _invalid(request, error) from None
        if by_cookie:
            door.check_cookie(request, caller)
        check_scopes(request, caller, scopes.scopes)
        return caller

    async def still(self, request: Request, caller: Caller) -> None:
        """Raises as a call does when the caller would not be admitted any more, after a long wait."""
        door: Door = request.app.state.door
        try:
            await door.gatekeeper.check(caller)
        except InvalidToken as error:
            raise _invalid(request, error) from None


GATE: Final = Gate()


def check_scopes(request: Request, caller: Caller, scopes: Sequence[str]) -> None:
    """Raises a 403 problem for a caller without one of them: for what only a part of a route's requests needs."""
    missing = [scope for scope in scopes if scope not in caller.scopes]
    if not missing:
        return
    record("access.denied", subject=caller.subject, session=caller.session, scope=" ".join(missing), **where(request))
    raise Problem(
        403,
        "insufficient_scope",
        f"This needs the scope {' '.join(missing)}, which the token does not have.",
        headers={"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{" ".join(scopes)}"'},
    )


def needs(*scopes: Scope) -> Any:  # noqa: ANN401 - as FastAPI's Security
    """The dependency of a route that these scopes are needed for; gives the Caller."""
    if not scopes:
        raise ValueError("name a scope, or mark the route as for anyone or for every caller")
    return Security(GATE, scopes=[scope.value for scope in scopes])


# the caller of a route that any valid token opens: what it does is bounded to the caller's own
ANY_CALLER: Final = Security(GATE, scopes=[])


def for_anyone(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint that is open to strangers."""
    setattr(endpoint, ACCESS_MARK, "anyone")
    return endpoint


def for_every_caller(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint that any valid token opens; it takes ANY_CALLER."""
    setattr(endpoint, ACCESS_MARK, "caller")
    return endpoint


def _token(request: Request) -> tuple[str | None, bool]:
    """The token, and whether a cookie brought it; who sends Authorization means that."""
    sent = request.headers.getlist("authorization")
    if len(sent) > 1:
        # a proxy may go by another of them than we would
        return None, False
    # white space around a field's value is none of it (RFC 9110, section 5.5); nothing else is passed over
    scheme, _, token = "".join(sent).strip(" \t").partition(" ")
    if scheme:
        return (token.lstrip(" ") or None) if scheme.lower() == "bearer" else None, False
    return (request.cookies.get(ACCESS), True) if "cookie" in request.headers else (None, False)


def _invalid(request: Request, error: InvalidToken) -> Problem:
    record("access.invalid_token", reason=str(error), **where(request))
    return Problem(
        401,
        "invalid_token",
        "The token is not valid, or not any more: log in, or refresh it.",
        headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
    )


def where(request: Request) -> dict[str, str]:
    """The route, not the path: whatever a stranger put into the path stays out of the security log."""
    return {"method": request.method, "route": getattr(request.scope.get("route"), "path", "unmatched")}
