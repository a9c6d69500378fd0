import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.keyring import Digester
from identity.guessing import Allowance, Guesses, Target, too_many
from runtime.settings import Settings
from tests.databases import CHEAP_ARGON2

SETTINGS: dict[str, Any] = {"database_url": "postgresql://nowhere", "guesses_per_account": 7, **CHEAP_ARGON2}
GUESSES = Guesses(Settings(**SETTINGS), Digester(b"k" * 32))
ACCOUNT = b"a" * 32


def target(address: str | None, *, account: bytes = ACCOUNT, device: bytes | None = None) -> Target:
    return GUESSES.target(account, address, device)


@pytest.mark.parametrize(
    "same",
    [
        ["10.0.0.1", "::ffff:10.0.0.1", "::ffff:a00:1"],
        ["2001:db8::", "2001:db8::1", "2001:db8:0:ff::", "2001:db8:0:00ff:ffff:ffff:ffff:ffff"],
        ["2001:db8:0:100::1", "2001:db8:0:1ff::1"],
        ["fe80::1", "fe80::1%eth0", "fe80::2%eth1"],
        ["::1", "::", "0:0:0:ff::1"],
        [None, "", "unix:", "testclient", "10.0.0", "10.0.0.1:80", "[::1]", "010.0.0.1", "10.0.0.1\n"],
    ],
)
def test_what_one_caller_has_is_one_address(same: list[str | None]) -> None:
    assert len({target(address) for address in same}) == 1


def test_what_two_callers_have_are_two() -> None:
    others = [
        "10.0.0.1",
        "10.0.0.2",
        "::ffff:10.0.0.3",
        "2001:db8::1",
        "2001:db8:0:100::1",
        "2001:db8:0:200::1",
        "2002:db8::1",
        "fe80::1",
        "::1",
        None,
    ]
    for part in ("pair", "address"):
        assert len({getattr(target(address), part) for address in others}) == len(others)
    # the account is the same from everywhere
    assert len({target(address).account for address in others}) == 1


def test_every_count_has_a_key_of_its_own() -> None:
    targets = [target("10.0.0.1"), target("10.0.0.2", account=b"b" * 32), target("10.0.0.1", device=b"d" * 16)]
    keys = [key for one in targets for key in one.keys]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}


def test_a_known_device_is_one_wherever_it_is_and_for_its_account_alone() -> None:
    at_home, abroad = (target(address, device=b"d" * 16) for address in ("10.0.0.1", "2001:db8::1"))
    assert at_home == abroad
    other = target("10.0.0.1", device=b"e" * 16)
    others = target("10.0.0.1", account=b"b" * 32, device=b"d" * 16)
    assert len({*at_home.keys, *other.keys, *others.keys}) == 9


def test_a_key_tells_nothing_without_the_secret_one() -> None:
    elsewhere = Guesses(Settings(**SETTINGS), Digester(b"l" * 32)).target(ACCOUNT, "10.0.0.1")
    assert not {*elsewhere.keys} & {*target("10.0.0.1").keys}


@given(address=st.text(max_size=60) | st.ip_addresses().map(str))
def test_any_address_is_one(address: str) -> None:
    assert {len(key) for key in target(address).keys} == {32}


@given(address=st.ip_addresses(v=4))
def test_an_ipv4_address_is_the_same_in_ipv6(address: object) -> None:
    assert target(f"::ffff:{address}") == target(str(address))


@given(remaining=st.integers(0, 100), wait=st.floats(0, 900))
def test_headers_are_structured_fields(remaining: int, wait: float) -> None:
    """RFC 9651: a list of one string with integer parameters."""
    headers = GUESSES.allowance(remaining, wait).headers()
    assert headers["RateLimit-Policy"] == '"login";q=7;w=86400'
    found = re.fullmatch(r'"login";r=([0-9]{1,15});t=([0-9]{1,15})', headers["RateLimit"])
    assert found is not None
    assert int(found[1]) == remaining
    assert wait <= int(found[2]) <= wait + 1


@pytest.mark.parametrize(
    ("wait", "seconds"), [(0.0001, 1), (0.5, 1), (1, 1), (1.0001, 2), (59.2, 60), (60, 60), (899.9, 900)]
)
def test_who_waits_as_long_as_told_is_not_too_early_again(wait: float, seconds: int) -> None:
    problem = too_many(Allowance(quota=7, remaining=0, wait=wait))
    assert (problem.status_code, problem.code) == (429, "too_many_attempts")
    assert problem.headers == {
        "Cache-Control": "no-store",
        "RateLimit": f'"login";r=0;t={seconds}',
        "RateLimit-Policy": '"login";q=7;w=86400',
        "Retry-After": str(seconds),
    }
    assert problem.members == {"error": "slow_down", "error_description": problem.detail}
    assert f" {seconds} s" in problem.detail
