"""Who is calling: the one dependency that every protected route takes."""

import hmac
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from events.recording import Actor
from runtime.problems import Problem
from runtime.settings import Settings

scheme = HTTPBearer(auto_error=False, description="The token that `make run` prints")


class Gatekeeper:
    """Tells callers from their bearer tokens. In development, one static token stands for one administrator."""

    def __init__(self, settings: Settings) -> None:
        token = settings.development_token
        self._token = token.get_secret_value().encode() if token is not None else None

    def admit(self, token: str) -> Actor | None:
        if self._token is not None and hmac.compare_digest(token.encode(), self._token):
            return Actor(subject="development", kind="operator")
        return None


async def caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(scheme)]
) -> Actor:
    """Raises a 401 problem with a WWW-Authenticate challenge (RFC 6750, section 3)."""
    gatekeeper: Gatekeeper = request.app.state.gatekeeper
    if credentials is None:
        raise Problem(
            401,
            "unauthenticated",
            "Send a token: Authorization: Bearer <token>",
            headers={"WWW-Authenticate": 'Bearer realm="muster"'},
        )
    actor = gatekeeper.admit(credentials.credentials)
    if actor is None:
        raise Problem(
            401,
            "invalid_token",
            "The token is not one of ours.",
            headers={"WWW-Authenticate": 'Bearer realm="muster", error="invalid_token"'},
        )
    return actor


ADMITTED = Security(caller)
Caller = Annotated[Actor, ADMITTED]
