"""Access tokens: JWTs of RFC 9068, signed with Ed25519 (RFC 8037), verified as RFC 8725 asks."""

import base64
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from events.recording import Actor
from identity.roles import Scope, scopes_named
from identity.signing_keys import LONGEST_TOKEN
from identity.trust import SigningKey
from runtime.ids import new_id
from runtime.settings import Settings

ALGORITHM: Final = "EdDSA"
TYPE: Final = "at+jwt"
# ours have some 700 bytes; nothing longer is even looked into
MAX_LENGTH: Final = 2048
# clocks of two machines differ a little: a token may come from a moment that is still to come here
SKEW: Final = 5
# RFC 7515, section 7.1. A signature's last character has four bits to spare: one token is written in one way.
COMPACT: Final = re.compile(r"([\w-]+)\.([\w-]+)\.[\w-]{85}[AQgw]", re.ASCII)
HEADER: Final = {"alg", "typ", "kid"}
REQUIRED: Final = ("iss", "aud", "sub", "exp", "iat", "jti", "scope", "sid", "client_id", "rev")
# the client of who logs in with a password: Muster itself
FIRST_PARTY: Final = "muster"


class InvalidToken(Exception):
    """The token is not one that this service issued and that is valid now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who is calling, by a verified access token.

    `reflects` is the newest revocation that the token takes into account; `expires_at` is in seconds of the epoch.
    """

    subject: str
    kind: Literal["user", "service"]
    scopes: frozenset[Scope]
    session: str
    reflects: int
    expires_at: float
    kid: str

    @property
    def actor(self) -> Actor:
        return Actor(subject=self.subject, kind=self.kind, session=self.session)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a token is to say. `client` is None for a user's own login."""

    subject: UUID
    client: UUID | None
    scopes: frozenset[Scope]
    session: UUID
    reflects: int


class AccessTokens:
    def __init__(self, settings: Settings) -> None:
        self._issuer = settings.token_issuer
        self._audience = settings.token_audience
        self.ttl = settings.access_token_ttl

    def issue(self, grant: Grant, key: SigningKey) -> str:
        """Nothing personal is in a token: who holds it can read it."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(grant.subject),
            "client_id": str(grant.client) if grant.client is not None else FIRST_PARTY,
            "iat": now,
            "exp": now + self.ttl,
            "jti": str(new_id()),
            "sid": str(grant.session),
            "scope": " ".join(sorted(grant.scopes)),
            "rev": grant.reflects,
        }
        return jwt.encode(claims, key.private, algorithm=ALGORITHM, headers={"typ": TYPE, "kid": key.kid})

    def verify(self, token: str, keys: Mapping[str, Ed25519PublicKey]) -> Caller:
        """Raises InvalidToken. Only `keys` are trusted: a header that names or brings any other is refused."""
        if len(token) > MAX_LENGTH:
            raise InvalidToken("too long")
        if (parts := COMPACT.fullmatch(token)) is None:
            raise InvalidToken("not a signed token in its canonical form")
        header, body = parts.groups()
        try:
            kid = self._kid(_object(header))
            if (key := keys.get(kid)) is None:
                raise InvalidToken("signed by an unknown key")
            jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                leeway=SKEW,
                options={"require": list(REQUIRED), "strict_aud": True},
            )
            # again and more strictly: of a name that is there twice the library takes one, and it reads UTF-16 as well
            return self._caller(_object(body), kid)
        except jwt.PyJWTError as error:
            # its kind alone: the message may repeat what a stranger wrote into the token
            raise InvalidToken(type(error).__name__) from None
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidToken(f"malformed: {type(error).__name__}") from None

    def _kid(self, header: Mapping[str, Any]) -> str:
        # no member but ours: jku, jwk, x5u and crit can ask for nothing
        if set(header) != HEADER or header["alg"] != ALGORITHM or header["typ"] != TYPE:
            raise InvalidToken("not an access token's header")
        if not isinstance(kid := header["kid"], str):
            raise InvalidToken("not an access token's header")
        return kid

    def _caller(self, claims: Mapping[str, Any], kid: str) -> Caller:
        subject, client, session, scope = texts = [claims[name] for name in ("sub", "client_id", "sid", "scope")]
        numbers = [claims[name] for name in ("exp", "iat", "rev")]
        if any(type(text) is not str for text in texts) or any(type(number) is not int for number in numbers):
            raise InvalidToken("a claim is of the wrong type")
        for value in (subject, session):
            if str(UUID(value)) != value:
                raise InvalidToken("an id is not in its canonical form")
        if claims["exp"] - claims["iat"] > LONGEST_TOKEN:
            raise InvalidToken("lives longer than any token that was issued")
        # an instance with a longer ACCESS_TOKEN_TTL than ours may have issued it; revocations are kept for ours
        expires_at = min(float(claims["exp"]), float(claims["iat"]) + self.ttl)
        if expires_at <= time.time():
            raise InvalidToken("expired")
        return Caller(
            subject=subject,
            # RFC 9068, section 2.2: a client that acts for itself is its own subject
            kind="service" if client == subject else "user",
            scopes=scopes_named(scope.split(" ")),
            session=session,
            reflects=claims["rev"],
            expires_at=expires_at,
            kid=kid,
        )


def _object(part: str) -> dict[str, Any]:
    """A part's JSON object, in UTF-8 (RFC 8725, section 3.7) and without a name that is there twice."""
    found = json.loads(base64.urlsafe_b64decode(f"{part}==").decode(), object_pairs_hook=_once)
    if not isinstance(found, dict):
        raise InvalidToken("not a JSON object")
    return cast("dict[str, Any]", found)


def _once(members: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise InvalidToken("a name is there twice")
    return found
