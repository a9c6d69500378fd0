import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from events.keks import KeyWrapper
from runtime.database import Connection

# What an old key signed stays good for this long after the next one took over: no access token may live longer
# (runtime.settings, ACCESS_TOKEN_TTL).
LONGEST_TOKEN = 86400 + 60
# every instance has looked by then (identity.trust, FRESH_FOR): no key signs that one of them may not know
KNOWN_AFTER = 1.0
COLUMNS = "kid, public_key, published_at, signs_from, verifies_until"

INSERT = """
INSERT INTO identity.signing_keys (kid, public_key, wrapped, kek_id, signs_from)
VALUES (%s, %s, %s, %s, now() + make_interval(secs => %s))
"""
LOCK = "LOCK TABLE identity.signing_keys IN SHARE ROW EXCLUSIVE MODE"
INSERT_FIRST = """
INSERT INTO identity.signing_keys (kid, public_key, wrapped, kek_id, signs_from)
SELECT %s, %s, %s, %s,
    clock_timestamp() + make_interval(secs => CASE WHEN EXISTS (SELECT 1 FROM identity.signing_keys) THEN %s ELSE 0 END)
WHERE NOT EXISTS (SELECT 1 FROM identity.signing_keys WHERE verifies_until IS NULL)
"""
RETIRE = """
UPDATE identity.signing_keys SET verifies_until = now() + make_interval(secs => %s)
WHERE verifies_until IS NULL AND kid <> %s
"""
REVOKE = """
UPDATE identity.signing_keys SET verifies_until = now()
WHERE kid = %s AND (verifies_until IS NULL OR verifies_until > now())
RETURNING kid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A signing key's public side. It signs from `signs_from` until a newer one does, and verifies until the end."""

    kid: str
    public_key: bytes
    published_at: datetime
    signs_from: datetime
    verifies_until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    kid: str
    public_key: bytes
    wrapped: bytes
    kek_id: str


def kid_of(public_key: bytes) -> str:
    """The key's JWK thumbprint (RFC 7638, RFC 8037 appendix A.3)."""
    jwk = f'{{"crv":"Ed25519","kty":"OKP","x":"{_base64url(public_key)}"}}'
    return _base64url(hashlib.sha256(jwk.encode()).digest())


def jwk_of(kid: str, public_key: bytes) -> dict[str, str]:
    """RFC 8037, section 2."""
    return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": kid, "x": _base64url(public_key)}


def new_key(kek: KeyWrapper) -> NewKey:
    return wrapped_key(Ed25519PrivateKey.generate(), kek)


def wrapped_key(private: Ed25519PrivateKey, kek: KeyWrapper) -> NewKey:
    public = private.public_key().public_bytes_raw()
    return NewKey(kid=kid_of(public), public_key=public, wrapped=kek.wrap(private.private_bytes_raw()), kek_id=kek.id)


def open_key(wrapped: bytes, kek: KeyWrapper) -> Ed25519PrivateKey:
    """Raises WrongKey."""
    return Ed25519PrivateKey.from_private_bytes(kek.unwrap(wrapped))


def verifying_key(public_key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public_key)


async def insert_first(connection: Connection, key: NewKey) -> None:
    """Store a key if none is there to stay: of instances that find that out together, one does.

    The first of all signs at once; one in the place of a revoked key when every instance knows it.
    """
    async with connection.transaction():
        await connection.execute(LOCK)
        await connection.execute(INSERT_FIRST, (key.kid, key.public_key, key.wrapped, key.kek_id, KNOWN_AFTER))


async def insert_next(connection: Connection, key: NewKey, *, signs_in: int) -> None:
    """Publish a key that takes over in `signs_in` seconds; those before it still verify what they signed."""
    async with connection.transaction():
        await connection.execute(INSERT, (key.kid, key.public_key, key.wrapped, key.kek_id, signs_in))
        await connection.execute(RETIRE, (signs_in + LONGEST_TOKEN, key.kid))


async def revoke(connection: Connection, kid: str) -> bool:
    """Trust a key no more, nor what it signed; False when no living key has this id."""
    cursor = await connection.execute(REVOKE, (kid,))
    return await cursor.fetchone() is not None


async def all_keys(connection: Connection) -> Sequence[KeyRecord]:
    cursor = await connection.execute(f"SELECT {COLUMNS} FROM identity.signing_keys ORDER BY signs_from")  # noqa: S608 - a constant
    return [KeyRecord(**row) for row in await cursor.fetchall()]


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
