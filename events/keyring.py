import base64
import hashlib
import hmac
import secrets
import string
from itertools import pairwise
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)
from pydantic import SecretStr

from runtime.fleeting import Fleeting
from runtime.settings import BadSettings, Settings

KEY_BYTES = 32
_TEXT = frozenset(string.printable.encode())


class BadKey(BadSettings):
    """A key is missing or is not 32 bytes in base64, or in production not random ones."""


class WrongKey(Exception):
    """A user's data key does not open under this key-encryption key: it was wrapped by another, or altered."""


class Kek:
    """The key-encryption key: wraps the users' data keys with AES-KWP (RFC 5649) and never leaves the process."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        # names the key without telling anything of it
        self.id = hashlib.sha256(b"muster kek id\0" + key).hexdigest()[:16]

    def wrap(self, data_key: bytes) -> bytes:
        return aes_key_wrap_with_padding(self._key, data_key)

    def unwrap(self, wrapped: bytes) -> bytes:
        """Raises WrongKey."""
        try:
            return aes_key_unwrap_with_padding(self._key, wrapped)
        except InvalidUnwrap:
            raise WrongKey(
                f"a data key does not open under KEK {self.id}: set KEK or KEK_FILE to the one this log was begun with"
            ) from None


class Keyring:
    """Opens users' data keys, remembering up to `capacity` of them for a few seconds (runtime/fleeting.py).

    Unwrapping costs more than the cipher.
    """

    def __init__(self, kek: Kek, *, capacity: int = 50_000) -> None:
        self._kek = kek
        # the keys, not the ciphers made of them: those are ten times the size and soon made
        self._opened: Fleeting[UUID, bytes] = Fleeting(capacity=capacity)

    @property
    def kek(self) -> Kek:
        return self._kek

    @property
    def kek_id(self) -> str:
        return self._kek.id

    def make(self, user_id: UUID) -> tuple[AESGCM, bytes]:
        """A new user's random 256-bit key: the cipher and the wrapped key to store."""
        key = secrets.token_bytes(KEY_BYTES)
        self._opened.put(user_id, key)
        return AESGCM(key), self._kek.wrap(key)

    def open(self, user_id: UUID, wrapped: bytes) -> AESGCM:
        """Raises WrongKey."""
        if (key := self._opened.get(user_id)) is None:
            key = self._kek.unwrap(wrapped)
            self._opened.put(user_id, key)
        return AESGCM(key)


class Digester:
    """Keyed digests (HMAC-SHA256): what they are of cannot be guessed from the database alone."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def email_key(self, canonical_email: str) -> bytes:
        return hmac.digest(self._key, b"email\0" + canonical_email.encode(), "sha256")

    def keyed(self, purpose: bytes, value: bytes) -> bytes:
        """A digest that differs for each purpose; a purpose has no NUL in it."""
        return hmac.digest(self._key, purpose + b"\0" + value, "sha256")

    def request(self, canonical_request: bytes) -> bytes:
        return hmac.digest(self._key, b"request\0" + canonical_request, "sha256")


def read_key(encoded: SecretStr | None, *, variable: str, production: bool) -> bytes:
    """Decode a 256-bit key; raises BadKey, which says how to mend it and nothing of the key."""
    remedy = (
        f"set {variable} or {variable}_FILE to {KEY_BYTES} random bytes in base64 (openssl rand -base64 {KEY_BYTES})"
    )
    if encoded is None:
        raise BadKey(f"{variable} is not set: {remedy}")
    try:
        key = base64.b64decode(encoded.get_secret_value().strip(), validate=True)
    except ValueError:
        raise BadKey(f"{variable} is not base64: {remedy}") from None
    if len(key) != KEY_BYTES:
        raise BadKey(f"{variable} holds {len(key)} bytes, not {KEY_BYTES}: {remedy}")
    if production and _is_placeholder(key):
        raise BadKey(f"{variable} is a placeholder, which production refuses: {remedy}")
    return key


def open_keyring(settings: Settings) -> Keyring:
    """Raises BadKey."""
    return Keyring(Kek(read_key(settings.kek, variable="KEK", production=settings.muster_mode == "production")))


def open_digester(settings: Settings) -> Digester:
    """Raises BadKey."""
    return Digester(
        read_key(settings.email_index_key, variable="EMAIL_INDEX_KEY", production=settings.muster_mode == "production")
    )


def _is_placeholder(key: bytes) -> bool:
    """Whether a key is text, counts evenly or repeats itself; for a random one each is less likely than 1 in 10^12."""
    steps = {(after - before) % 256 for before, after in pairwise(key)}
    return all(byte in _TEXT for byte in key) or len(steps) == 1 or len(set(key)) < KEY_BYTES // 2
