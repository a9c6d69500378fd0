"""Refresh tokens: opaque to their holders, 256 random bits each, known to the database by their hashes alone.

A token is a session's id, 128 bits that all tokens of the session share (its family), and 256 bits of its own. The next
one is made of the one before and of fresh salt: HMAC-SHA256(secret, salt). So the same answer can be given again to who
lost it, without keeping any token, and neither a stolen token nor a stolen database alone yields the next one.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final
from uuid import UUID

PREFIX: Final = "mrt_"
FAMILY_BYTES: Final = 16
SECRET_BYTES: Final = 32
LENGTH: Final = 16 + FAMILY_BYTES + SECRET_BYTES
TEXT_LENGTH: Final = len(PREFIX) + 86


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    session: UUID
    family: bytes
    secret: bytes

    @classmethod
    def first(cls, session: UUID) -> "RefreshToken":
        return cls(session=session, family=secrets.token_bytes(FAMILY_BYTES), secret=secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> "RefreshToken | None":
        """None for what is no refresh token."""
        if len(text) != TEXT_LENGTH or not text.startswith(PREFIX) or not text.isascii():
            return None
        encoded = text.removeprefix(PREFIX)
        try:
            raw = base64.b64decode(f"{encoded}==", altchars=b"-_", validate=True)
        except ValueError:
            return None
        found = cls(session=UUID(bytes=raw[:16]), family=raw[16 : 16 + FAMILY_BYTES], secret=raw[16 + FAMILY_BYTES :])
        # the last character has bits to spare: one token is written in one way
        return found if found.text == text else None

    def next(self, salt: bytes) -> "RefreshToken":
        return RefreshToken(session=self.session, family=self.family, secret=hmac.digest(self.secret, salt, "sha256"))

    @property
    def text(self) -> str:
        raw = self.session.bytes + self.family + self.secret
        return PREFIX + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    @property
    def family_hash(self) -> bytes:
        return hashlib.sha256(self.family).digest()

    @property
    def secret_hash(self) -> bytes:
        return hashlib.sha256(self.secret).digest()
