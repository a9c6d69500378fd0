"""Tokens that nobody may be admitted with, each under the name of what is wrong with it.

Most are signed by the key that every test's database trusts: it is then the rest of the token that is wrong, so that no
other defence hides the one that is asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests import hostile_claims, hostile_headers, hostile_spellings
from tests.forging import Named, header, signed, thumbprint
from tests.tokens import ADMIN_ID, KID, token_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What the database at hand knows: who is revoked, which keys are stored, which other secrets it gave out."""

    revocation: int
    revoked_subject: UUID
    revoked_session: UUID
    retired_key: Ed25519PrivateKey
    refresh_token: str
    client_secret: str
    password: str


def hostile_tokens(known: Circumstances) -> dict[str, bytes]:
    """Each token as the bytes of a header's value."""
    named: dict[str, bytes] = {}
    for name, token in _all(known):
        sent = token.encode() if isinstance(token, str) else token
        assert name not in named, f"two tokens are named {name}"
        assert sent not in named.values(), f"{name} is a token that is there under another name"
        named[name] = sent
    return named


def _all(known: Circumstances) -> Iterator[Named]:
    yield from hostile_headers.without_signature()
    yield from hostile_headers.by_secrets_that_are_public()
    yield from hostile_headers.by_other_keys()
    yield from hostile_headers.by_other_names_of_the_algorithm()
    yield from hostile_headers.with_more_in_the_header()
    yield from hostile_headers.with_another_kid()
    yield from hostile_headers.of_another_type()
    yield from hostile_claims.with_wrong_claims()
    yield from hostile_claims.at_another_time()
    yield from hostile_claims.with_odd_json()
    yield from hostile_spellings.with_a_forged_signature()
    yield from hostile_spellings.misspelled()
    yield from _retired(known.retired_key)
    yield from _revoked(known)
    yield from _other_secrets(known)


def _retired(key: Ed25519PrivateKey) -> Iterator[Named]:
    yield "a retired key", signed(header(kid=thumbprint(key)), key=key)
    yield "a retired key under our kid", signed(key=key)


def _revoked(known: Circumstances) -> Iterator[Named]:
    yield "a revoked session", token_of(sid=str(known.revoked_session))
    yield "a revoked subject", token_of(known.revoked_subject)
    before = known.revocation - 1
    yield "a subject revoked after the last that it reflects", token_of(known.revoked_subject, rev=before)
    for rev in (known.revocation + 1, 2**31, 2**63 - 1, 2**64, 10**300):
        yield f"rev {rev} above all revocations", token_of(rev=rev)


def _other_secrets(known: Circumstances) -> Iterator[Named]:
    yield "a refresh token", known.refresh_token
    yield "a client's secret", known.client_secret
    yield "a password", known.password
    yield "a session's id", str(known.revoked_session)
    yield "a user's id", str(ADMIN_ID)
    yield "the kid", KID
    yield "an id with a scheme", f"uuid:{ADMIN_ID}"
    for word in ("null", "undefined", "None", "true", "0", "{}", "[]", "admin", ".", "...", "%00", "${jndi:x}"):
        yield f"the word {word}", word
