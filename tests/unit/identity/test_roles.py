from itertools import combinations

import pytest

from identity.roles import MEANINGS, ROLES, Scope, outranked, scopes_named, scopes_of

READ, WRITE, ERASE, EVENTS, OPS, SELF = (
    Scope.USERS_READ,
    Scope.USERS_WRITE,
    Scope.USERS_ERASE,
    Scope.EVENTS_READ,
    Scope.OPS,
    Scope.SELF,
)
ALL = frozenset(Scope)
EVERY_AUTHORITY = [frozenset(some) for size in range(len(Scope) + 1) for some in combinations(Scope, size)]


def test_the_roles_are_these() -> None:
    assert dict(ROLES) == {
        "admin": {READ, WRITE, ERASE, EVENTS, OPS, SELF},
        "operator": {READ, OPS, SELF},
        "auditor": {READ, EVENTS, SELF},
        "user": {SELF},
    }


def test_the_scopes_are_these_and_each_says_what_it_is_for() -> None:
    names = {"users:read", "users:write", "users:erase", "events:read", "ops", "self"}
    assert {scope.value for scope in Scope} == names
    assert MEANINGS.keys() == ALL
    assert all(MEANINGS.values())


@pytest.mark.parametrize(
    ("roles", "scopes"),
    [
        ([], set[Scope]()),
        (["user"], {SELF}),
        (["operator", "auditor"], {READ, OPS, EVENTS, SELF}),
        (["user", "user", "admin"], ALL),
        (["painter"], set[Scope]()),
        (["painter", "user"], {SELF}),
        (["Admin", "ADMIN", " admin", "admin ", "users:write"], set[Scope]()),
    ],
)
def test_an_account_may_do_what_any_of_its_roles_may(roles: list[str], scopes: set[Scope]) -> None:
    assert scopes_of(roles) == scopes


def test_names_that_are_no_scopes_are_passed_over() -> None:
    assert scopes_named(["ops", "self", "ops", "OPS", "admin", "", "users:*", "users"]) == {OPS, SELF}


@pytest.mark.parametrize(
    ("scopes", "roles", "expected"),
    [
        (ALL, ["admin"], False),
        (ALL - {SELF}, ["admin"], False),
        ({WRITE}, ["admin"], True),
        ({WRITE}, ["operator"], True),
        ({WRITE}, ["auditor"], True),
        ({WRITE}, ["user"], False),
        ({WRITE}, [], False),
        ({WRITE}, ["painter"], False),
        ({WRITE}, ["painter", "user", "auditor"], True),
        ({WRITE, READ, OPS}, ["operator"], False),
        ({WRITE, READ, OPS}, ["operator", "auditor"], True),
        (ALL - {ERASE}, ["admin"], True),
        (set[Scope](), ["user"], False),
    ],
)
def test_whoever_may_do_less_is_outranked(scopes: set[Scope], roles: list[str], *, expected: bool) -> None:
    assert outranked(frozenset(scopes), roles) is expected


@pytest.mark.parametrize("role", ROLES)
def test_nobody_gives_a_right_that_they_lack(role: str) -> None:
    for authority in EVERY_AUTHORITY:
        gained = scopes_of([role]) - authority - {SELF}
        assert outranked(authority, [role]) is bool(gained)
        # a role of the applications' own hides none of Muster's
        assert outranked(authority, ["painter", role]) is bool(gained)
