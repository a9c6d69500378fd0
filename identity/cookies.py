"""Tokens as cookies, for browsers: out of scripts' reach, and guarded against requests that other sites make.

The __Host- prefix (RFC 6265bis, section 4.1.3.2) binds a cookie to this host, to HTTPS and to no domain. A request that
changes something on the strength of a cookie must come from our own pages (Origin) and repeat a token that only they
can read (X-CSRF-Token), which belongs to one session and is not stored: HMAC-SHA256 of the session's id.
"""

import base64
import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request, Response

from events.keyring import Digester
from identity.security_log import record
from runtime.problems import Fault, Problem

ACCESS: Final = "__Host-muster-access"
REFRESH: Final = "__Host-muster-refresh"
CSRF: Final = "__Host-muster-csrf"
DEVICE: Final = "__Host-muster-device"
# outlasts the sessions it makes easier to begin
DEVICE_TTL: Final = 365 * 86400
CSRF_HEADER: Final = "X-CSRF-Token"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def csrf_token(digester: Digester, session: str) -> str:
    return base64.urlsafe_b64encode(digester.keyed(b"csrf", session.encode())).rstrip(b"=").decode()


def set_cookies(response: Response, *, access: str, access_ttl: int, refresh: str, session_ttl: int, csrf: str) -> None:
    for name, value, age in ((ACCESS, access, access_ttl), (REFRESH, refresh, session_ttl), (CSRF, csrf, session_ttl)):
        # the CSRF token is for our pages' scripts to read
        response.set_cookie(name, value, max_age=age, path="/", secure=True, httponly=name != CSRF, samesite="lax")


def set_device_cookie(response: Response, device: str) -> None:
    """The one that a logout leaves: it is of the device, not of the session."""
    response.set_cookie(DEVICE, device, max_age=DEVICE_TTL, path="/", secure=True, httponly=True, samesite="lax")


def clear_cookies(response: Response) -> None:
    for name in (ACCESS, REFRESH, CSRF):
        response.delete_cookie(name, path="/", secure=True, httponly=name != CSRF, samesite="lax")


def check_origin(request: Request, origins: frozenset[str]) -> None:
    """Refuse a request that another site's page makes; raises a 403 problem.

    Browsers send Origin with every request that could change something. Without one this is no browser's request.
    """
    origin = request.headers.get("origin")
    if origin is not None and (origin in origins or _same_host(origin, request.headers)):
        return
    record("access.foreign_origin")
    fault = Fault(detail="is not one of our pages", code="foreign_origin", parameter="Origin")
    raise Problem(403, "foreign_origin", "With cookies, requests must come from our own pages.", faults=[fault])


def check_csrf(request: Request, digester: Digester | None, session: str) -> None:
    """Raises a 403 problem."""
    sent = request.headers.get(CSRF_HEADER, "").encode()
    good = [csrf_token(one, session).encode() for one in digester.all] if digester is not None else []
    if not any(hmac.compare_digest(sent, one) for one in good):
        record("access.csrf", session=session)
        fault = Fault(detail="must be the csrf_token of this session", code="csrf", parameter=CSRF_HEADER)
        raise Problem(
            403, "csrf", f"With cookies, send {CSRF_HEADER} on every request that changes something.", faults=[fault]
        )


def _same_host(origin: str, headers: Mapping[str, str]) -> bool:
    # a page cannot choose the Host header that its browser sends; the scheme is the proxy's affair
    try:
        netloc = urlsplit(origin).netloc
    except ValueError:
        return False
    return bool(netloc) and netloc.lower() == headers.get("host", "").lower()
