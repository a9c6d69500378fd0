from typing import Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, Field

from identity.app_state import digester_of, door_of, settings_of
from identity.cookies import csrf_token, set_cookies, set_device_cookie
from identity.logins import LoggedIn
from identity.refusals import NO_STORE
from identity.sessions import Begun
from identity.trust import SigningKey


class Tokens(BaseModel):
    """RFC 6749, section 5.1. With ?cookies=true the tokens are in cookies and the CSRF token is here."""

    access_token: str | None = None
    refresh_token: str | None = Field(None, description="good once; a service gets none")
    token_type: str = Field(examples=["bearer"])
    expires_in: int = Field(description="seconds that the access token is good for", examples=[600])
    scope: str = Field(examples=["self users:read"])
    csrf_token: str | None = None
    device_token: str | None = Field(
        None, description="keep it on this device and send it with the next login: others' guesses then delay nothing"
    )


async def signer_of(request: Request) -> SigningKey:
    """The key that signs now. Raises Unavailable: before anything was done for who could not be answered."""
    trust = door_of(request).trust
    if not trust.fresh:
        await trust.look()
    return trust.signer


def tokens_answer(
    request: Request, begun: Begun, signer: SigningKey, *, cookies: bool, logged_in: LoggedIn | None = None
) -> Response:
    door, settings = door_of(request), settings_of(request)
    access = door.tokens.issue(begun.grant, signer)
    body: dict[str, Any] = {
        "token_type": "bearer",
        "expires_in": door.tokens.ttl,
        "scope": " ".join(sorted(begun.grant.scopes)),
    }
    headers = {**NO_STORE, **(logged_in.allowance.headers() if logged_in is not None else {})}
    if not cookies or begun.refresh is None:
        body["access_token"] = access
        if logged_in is not None:
            body["device_token"] = logged_in.device
        if begun.refresh is not None:
            body["refresh_token"] = begun.refresh.text
        return Response(orjson.dumps(body), 200, headers, "application/json")
    csrf = csrf_token(digester_of(request), str(begun.grant.session))
    body["csrf_token"] = csrf
    answer = Response(orjson.dumps(body), 200, headers, "application/json")
    set_cookies(
        answer,
        access=access,
        access_ttl=door.tokens.ttl,
        refresh=begun.refresh.text,
        session_ttl=settings.session_ttl,
        csrf=csrf,
    )
    if logged_in is not None:
        set_device_cookie(answer, logged_in.device)
    return answer
