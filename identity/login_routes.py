import base64
from typing import Annotated
from urllib.parse import unquote_plus
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.security import SecurityScopes

from identity.app_state import digester_of, door_of, logins_of, peer_of
from identity.caller import GATE, for_anyone
from identity.cookies import DEVICE, REFRESH, check_csrf, check_origin, clear_cookies
from identity.forms import LoginForm, LogoutForm, RefreshForm, described_form, read_form
from identity.refresh_tokens import RefreshToken
from identity.refusals import NO_STORE, OAuthRoute, refused
from identity.roles import Scope, scopes_named
from identity.token_answers import Tokens, signer_of, tokens_answer
from runtime.problems import described

router = APIRouter(tags=["identity"], route_class=OAuthRoute)


@router.post(
    "/login",
    summary="Log in",
    response_model=Tokens,
    response_model_exclude_none=True,
    openapi_extra=described_form(LoginForm, required=True),
    responses=described(400, 401, 403, 413, 415, 422, 429, 503),
)
@for_anyone
async def login(
    request: Request,
    cookies: Annotated[bool, Query(description="for browsers: the tokens come as cookies")] = False,  # noqa: FBT002 - a query parameter
) -> Response:
    """OAuth 2 grants: a user's e-mail address and password, or a service's client_id and client_secret."""
    if cookies:
        check_origin(request, door_of(request).origins)
    form = await read_form(request, LoginForm)
    asked = _scopes(form.scope)
    signer = await signer_of(request)
    match form.grant_type:
        case "password":
            if form.username is None or form.password is None:
                raise refused(400, "invalid_request", "Send username and password.")
            device = form.device_token.get_secret_value() if form.device_token else request.cookies.get(DEVICE)
            begun, logged_in = await logins_of(request).by_password(
                form.username, form.password.get_secret_value(), asked, peer_of(request, device)
            )
            return tokens_answer(request, begun, signer, cookies=cookies, logged_in=logged_in)
        case "client_credentials":
            if cookies:
                raise refused(400, "invalid_request", "Cookies are for users: a service takes its token as it comes.")
            client_id, secret, basic = _client(request, form)
            begun = await logins_of(request).by_client(client_id, secret, asked, peer_of(request), basic=basic)
            return tokens_answer(request, begun, signer, cookies=False)
        case _:
            raise refused(400, "unsupported_grant_type", "grant_type is password or client_credentials.")


@router.post(
    "/refresh",
    summary="Exchange a refresh token",
    response_model=Tokens,
    response_model_exclude_none=True,
    openapi_extra=described_form(RefreshForm, required=False),
    responses=described(400, 401, 403, 413, 415, 503),
)
@for_anyone
async def refresh(request: Request) -> Response:
    """Each refresh token is good once.

    If an answer was lost, the same is answered again for a few seconds; a token that comes again later was stolen from
    one of two holders, and its whole session ends.
    """
    form = await read_form(request, RefreshForm)
    if form.grant_type != "refresh_token":
        raise refused(400, "unsupported_grant_type", "grant_type is refresh_token.")
    signer = await signer_of(request)
    if form.refresh_token is not None:
        begun = await logins_of(request).by_refresh(RefreshToken.parse(form.refresh_token.get_secret_value()))
        return tokens_answer(request, begun, signer, cookies=False)
    if (cookie := request.cookies.get(REFRESH)) is None:
        raise refused(400, "invalid_request", "Send refresh_token.")
    begun = await logins_of(request).by_refresh(_from_cookie(request, cookie))
    return tokens_answer(request, begun, signer, cookies=True)


@router.post(
    "/logout",
    summary="End this session",
    status_code=204,
    response_class=Response,
    openapi_extra={**described_form(LogoutForm, required=False), "security": [{"muster": []}, {}]},
    responses=described(400, 401, 403, 413, 415, 503),
)
@for_anyone
async def logout(request: Request) -> Response:
    """Void are then its refresh token and every access token, on every instance within a second.

    By the access token; or by the refresh token alone, for who has no other any more.
    """
    form = await read_form(request, LogoutForm)
    logins = logins_of(request)
    answer = Response(status_code=204, headers=dict(NO_STORE))
    if form.refresh_token is not None:
        await logins.end_by_refresh(RefreshToken.parse(form.refresh_token.get_secret_value()))
        return answer
    by_cookie = "authorization" not in request.headers
    cookie = request.cookies.get(REFRESH) if by_cookie else None
    token = _from_cookie(request, cookie) if cookie is not None else None
    if token is not None:
        await logins.end_by_refresh(token)
    else:
        caller = await GATE(request, SecurityScopes())
        await logins.end(UUID(caller.session), owner=UUID(caller.subject), by=caller.subject)
    if by_cookie:
        clear_cookies(answer)
    return answer


def _scopes(asked: str | None) -> frozenset[Scope] | None:
    if asked is None:
        return None
    names = asked.split()
    scopes = scopes_named(names)
    if len(scopes) < len(set(names)):
        known = " ".join(scope.value for scope in Scope)
        raise refused(400, "invalid_scope", f"The scopes are: {known}")
    return scopes


def _client(request: Request, form: LoginForm) -> tuple[str, str, bool]:
    """A client's id and secret from HTTP Basic or from the form (RFC 6749, section 2.3.1)."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            client_id, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except ValueError:
            raise refused(400, "invalid_request", "Authorization: Basic is malformed.") from None
        return unquote_plus(client_id), unquote_plus(secret), True
    if form.client_id is None or form.client_secret is None:
        raise refused(400, "invalid_request", "Send client_id and client_secret.")
    return form.client_id, form.client_secret.get_secret_value(), False


def _from_cookie(request: Request, cookie: str) -> RefreshToken | None:
    """The refresh token of a cookie, which our own pages sent."""
    check_origin(request, door_of(request).origins)
    token = RefreshToken.parse(cookie)
    if token is not None:
        check_csrf(request, digester_of(request), str(token.session))
    return token
