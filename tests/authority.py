"""Who may do what, written out by hand: nothing here is taken from the code that it judges."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

EVERYTHING: Final = frozenset({"users:read", "users:write", "users:erase", "events:read", "ops", "self"})
NOTHING: Final = frozenset[str]()

# the role of a user, or the one scope that a service was given: what a caller of this kind may do
SCOPES: Final[Mapping[str, frozenset[str]]] = {
    "stranger": NOTHING,
    "without a role": NOTHING,
    "painter": NOTHING,
    "user": frozenset({"self"}),
    "auditor": frozenset({"self", "users:read", "events:read"}),
    "operator": frozenset({"self", "users:read", "ops"}),
    "admin": EVERYTHING,
    **{f"service {scope}": frozenset({scope}) for scope in sorted(EVERYTHING)},
    # a service has no record of its own
    "service self": NOTHING,
}

# the method and path of every route of both APIs, and the scopes that it needs
ANY_CALLER: Final = "any caller"
PUBLIC: Final = "public"
NEEDS: Final[Mapping[str, Mapping[str, str]]] = {
    "command": {
        "POST /users": "users:write",
        "POST /users/import": "users:write",
        "PUT /users/{id}": "users:write",
        "PATCH /users/{id}": "users:write",
        "DELETE /users/{id}": "users:write",
        "POST /users/{id}/erase": "users:erase",
        "PUT /users/me": "self",
        "PATCH /users/me": "self",
        "GET /sessions": ANY_CALLER,
        "DELETE /sessions/{id}": ANY_CALLER,
        "POST /logout": ANY_CALLER,
        "POST /login": PUBLIC,
        "POST /refresh": PUBLIC,
    },
    "query": {
        "GET /users": "users:read",
        "GET /users/{id}": "users:read",
        "GET /users/me": "self",
        "GET /projection": "ops",
        "GET /users/{id}/history": "events:read",
        "GET /users/{id}/diff": "events:read",
        "GET /users/{id}/erasure": "events:read",
        "GET /users/{id}/export": "users:read events:read",
        "GET /users/me/export": "self",
        "GET /events": "events:read",
        "GET /schemas": PUBLIC,
        "GET /schemas/{file}": PUBLIC,
        "GET /asyncapi": PUBLIC,
        "GET /proofs/key": PUBLIC,
        "GET /proofs/checkpoint": PUBLIC,
        "GET /proofs/inclusion/{position}": PUBLIC,
        "GET /proofs/consistency": PUBLIC,
        "GET /proofs/tile/entries/{path}": "events:read",
        "GET /proofs/tile/{path}": PUBLIC,
    },
}
PUBLIC_OF_BOTH: Final = frozenset(
    {
        *("GET /.well-known/jwks.json", "GET /livez", "GET /readyz", "GET /metrics"),
        *("GET /openapi.json", "GET /docs", "GET /docs/oauth2-redirect", "GET /redoc"),
    }
)

# what a user's fields may be set to, in one request each
OWN: Final = frozenset({"email", "display_name", "attributes", "password", "current_password"})
OTHERS: Final = frozenset({"email", "display_name", "attributes", "password", "password_hash", "status", "roles"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One request: whose record it is about, which field it sets, and which roles it would give."""

    route: str
    needs: str
    owner: str = "own"
    field: str | None = None
    gives: str | None = None


# who owns the record, and the role that they have
OWNERS: Final[Mapping[str, str]] = {"own": "", "another's": "user", "an administrator's": "admin"}

Verdict = tuple[int, str] | None


def verdict(caller: str, act: Act) -> Verdict:
    """The refusal that the act deserves, as status and code; None when it is allowed."""
    scopes = SCOPES[caller]
    if act.needs == PUBLIC:
        return None
    if caller == "stranger":
        return 401, "unauthenticated"
    if act.needs != ANY_CALLER and set(act.needs.split()) - scopes:
        return 403, "insufficient_scope"
    if act.needs == ANY_CALLER:
        return _of_sessions(act, may_write="users:write" in scopes)
    if act.route.endswith("/users/me"):
        return _of_oneself(act)
    return _of_a_user(caller, act, scopes)


def _of_a_user(caller: str, act: Act, scopes: frozenset[str]) -> Verdict:
    if act.field is not None and act.field not in OTHERS:
        return 422, "extra_forbidden"
    if act.route == "GET /users/{id}/erasure":
        # nobody asked for one
        return 404, "no_erasure"
    if caller.startswith("service") and act.owner == "own" and "{id}" in act.route:
        return 404, "user_not_found"
    if act.owner == "own" and "{id}" in act.route and act.field in {"password", "password_hash"}:
        # one's own needs the current one
        return 403, "own_password"
    if act.needs in {"users:write", "users:erase"}:
        had = OWNERS[act.owner] or caller if "{id}" in act.route else "user"
        rights = SCOPES[had] | (SCOPES[act.gives] if act.gives else NOTHING)
        if rights - {"self"} - scopes:
            return 403, "outranked"
    return None


def _of_sessions(act: Act, *, may_write: bool) -> Verdict:
    if act.owner == "own" or may_write:
        return None
    return (403, "insufficient_scope") if act.route == "GET /sessions" else (404, "session_not_found")


def _of_oneself(act: Act) -> Verdict:
    if act.field in {"roles", "status"}:
        return 403, "not_yours"
    return None if act.field is None or act.field in OWN else (422, "extra_forbidden")
