"""Access tokens that the tests sign themselves, with a key that every test's database trusts."""

import hashlib
import time
from typing import Any
from uuid import UUID

import jwt
import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from events.keyring import Kek
from identity.roles import ROLES, Scope
from identity.signing_keys import wrapped_key
from runtime.ids import new_id

KEK = hashlib.sha256(b"the key-encryption key of the tests").digest()
EMAIL_INDEX_KEY = hashlib.sha256(b"the e-mail index key of the tests").digest()
SIGNING_KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"the signing key of the tests").digest())
KID = wrapped_key(SIGNING_KEY, Kek(KEK)).kid
# the administrator that most tests act as; nothing of them is in the database
ADMIN_ID = UUID("01900000-0000-7000-8000-00000000ad17")


def trust_the_tests(database_url: str) -> None:
    key = wrapped_key(SIGNING_KEY, Kek(KEK))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO identity.signing_keys (kid, public_key, wrapped, kek_id, signs_from)"
            " VALUES (%s, %s, %s, %s, 'epoch')",
            (key.kid, key.public_key, key.wrapped, key.kek_id),
        )


def claims_of(
    subject: UUID = ADMIN_ID,
    scopes: frozenset[Scope] = ROLES["admin"],
    **fields: Any,  # noqa: ANN401 - claims of any type
) -> dict[str, Any]:
    """What an access token says; a field that is None is left out."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": "urn:muster",
        "aud": "urn:muster:users",
        "sub": str(subject),
        "client_id": "muster",
        "iat": now,
        "exp": now + 600,
        "jti": str(new_id()),
        "sid": str(new_id()),
        "scope": " ".join(sorted(scopes)),
        "rev": 0,
    }
    return {name: value for name, value in (claims | fields).items() if value is not None}


def token_of(
    subject: UUID = ADMIN_ID,
    scopes: frozenset[Scope] = ROLES["admin"],
    **fields: Any,  # noqa: ANN401 - claims of any type
) -> str:
    return jwt.encode(
        claims_of(subject, scopes, **fields), SIGNING_KEY, algorithm="EdDSA", headers={"typ": "at+jwt", "kid": KID}
    )


def authorized(
    subject: UUID = ADMIN_ID,
    scopes: frozenset[Scope] = ROLES["admin"],
    **fields: Any,  # noqa: ANN401 - claims of any type
) -> dict[str, str]:
    return {"Authorization": f"Bearer {token_of(subject, scopes, **fields)}"}
