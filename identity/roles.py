"""What callers may do: scopes, and the roles that bundle them. This table is the whole of it."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Final


class Scope(StrEnum):
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    USERS_ERASE = "users:erase"
    EVENTS_READ = "events:read"
    OPS = "ops"
    SELF = "self"


MEANINGS: Final[Mapping[Scope, str]] = {
    Scope.USERS_READ: "read and list users",
    Scope.USERS_WRITE: "create, update and delete users; end anybody's sessions",
    Scope.USERS_ERASE: "erase a user's personal data for ever",
    Scope.EVENTS_READ: "read the history",
    Scope.OPS: "operate: rebuild, replay, parked events",
    Scope.SELF: "read and update one's own record and password at /users/me",
}
# A role that is not here is the applications' own and gives nothing in Muster.
ROLES: Final[Mapping[str, frozenset[Scope]]] = {
    "admin": frozenset(Scope),
    "operator": frozenset({Scope.USERS_READ, Scope.OPS, Scope.SELF}),
    "auditor": frozenset({Scope.USERS_READ, Scope.EVENTS_READ, Scope.SELF}),
    "user": frozenset({Scope.SELF}),
}


def scopes_of(roles: Iterable[str]) -> frozenset[Scope]:
    return frozenset[Scope]().union(*(ROLES.get(role, frozenset[Scope]()) for role in roles))


def outranked(scopes: frozenset[Scope], roles: Iterable[str]) -> bool:
    """Whether these roles may do what a caller with `scopes` may not, who then must not write who has or gets them.

    Without this rule, whoever may write users could make himself an administrator, or take over one.
    """
    return not _ranking(frozenset(roles)) <= scopes


@lru_cache(maxsize=1024)
def _ranking(roles: frozenset[str]) -> frozenset[Scope]:
    return scopes_of(roles) - {Scope.SELF}


def scopes_named(names: Iterable[str]) -> frozenset[Scope]:
    """The scopes among these names; a name that is none is passed over."""
    known = {scope.value: scope for scope in Scope}
    return frozenset(known[name] for name in names if name in known)
