"""Slowing down who guesses passwords, for all instances together: what is counted is in the database."""

import ipaddress
import math
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from events.email import canonical_email
from events.keyring import Digester
from runtime.problems import Problem
from runtime.settings import Settings

FORGOTTEN_AFTER = 86400
# who has one IPv6 address has a whole network of them
IPV6_PREFIX = 56


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whose password is tried from where, as keys that tell nothing of either."""

    pair: bytes
    account: bytes
    address: bytes

    @property
    def keys(self) -> tuple[bytes, bytes, bytes]:
        return self.pair, self.account, self.address


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What limits a caller is told in RateLimit headers: tries left, and seconds until the next one may be made."""

    quota: int
    remaining: int
    wait: float

    def headers(self) -> dict[str, str]:
        """RateLimit fields (draft-ietf-httpapi-ratelimit-headers)."""
        return {
            "RateLimit-Policy": f'"login";q={self.quota};w={FORGOTTEN_AFTER}',
            "RateLimit": f'"login";r={self.remaining};t={math.ceil(self.wait)}',
        }


class Guesses:
    def __init__(self, settings: Settings, digester: Digester) -> None:
        self.per_account = settings.guesses_per_account
        self.per_address = settings.guesses_per_address
        self._digester = digester

    def target(self, account: bytes, address: str | None, device: bytes | None = None) -> Target:
        """`account` is a keyed digest of who is tried; `address` is the peer's, None when there is none.

        A `device` that logged in to the account before is counted by itself, whatever comes from elsewhere.
        """
        if device is not None:
            pair, alone, anywhere = (
                self._digester.keyed(purpose, account + device)
                for purpose in (b"guess pair device", b"guess account device", b"guess address device")
            )
            return Target(pair=pair, account=alone, address=anywhere)
        network = _network(address)
        return Target(
            pair=self._digester.keyed(b"guess pair", account + network),
            account=_account(self._digester, account),
            address=self._digester.keyed(b"guess address", network),
        )

    def allowance(self, remaining: int, wait: float) -> Allowance:
        return Allowance(quota=self.per_account, remaining=remaining, wait=wait)


def too_many(allowance: Allowance) -> Problem:
    """The 429 for a try that comes too early (RFC 6585, section 4), alike for accounts that exist and that do not."""
    seconds = max(1, math.ceil(allowance.wait))
    detail = f"Too many wrong passwords: try again in {seconds} s."
    return Problem(
        429,
        "too_many_attempts",
        detail,
        headers={**allowance.headers(), "Retry-After": str(seconds), "Cache-Control": "no-store"},
        members={"error": "slow_down", "error_description": detail},
    )


def own_account(digester: Digester, user_id: UUID) -> bytes:
    """What is tried when somebody who is logged in tells their password again."""
    return digester.keyed(b"guess own", user_id.bytes)


def account_keys(digester: Digester, user_id: UUID, emails: Iterable[str]) -> list[bytes]:
    """The keys that failures at a user's accounts are counted by; those that depend on where they came from are not."""
    accounts = [own_account(digester, user_id), *(digester.email_key(canonical_email(email)) for email in emails)]
    return [_account(digester, account) for account in accounts]


def _account(digester: Digester, account: bytes) -> bytes:
    return digester.keyed(b"guess account", account)


def _network(address: str | None) -> bytes:
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return b"nowhere"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return parsed.ipv4_mapped.packed
        return ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False).network_address.packed
    return parsed.packed
