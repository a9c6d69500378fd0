import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from runtime.settings import BadSettings, Settings

KEY_BYTES = 32


class BadKeyFile(BadSettings):
    """A key file is missing or does not hold 32 bytes in base64."""


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
                f"a data key does not open under KEK {self.id}: set KEK_FILE to the file that this log was begun with"
            ) from None


class Keyring:
    """Opens users' data keys, remembering the last `capacity` of them (unwrapping costs more than the cipher)."""

    def __init__(self, kek: Kek, *, capacity: int = 50_000) -> None:
        self._kek = kek
        self._capacity = capacity
        # the keys, not the ciphers made of them: those are ten times the size and soon made
        self._opened: OrderedDict[UUID, bytes] = OrderedDict()

    @property
    def kek_id(self) -> str:
        return self._kek.id

    def make(self, user_id: UUID) -> tuple[AESGCM, bytes]:
        """A new user's random 256-bit key: the cipher and the wrapped key to store."""
        key = secrets.token_bytes(KEY_BYTES)
        self._remember(user_id, key)
        return AESGCM(key), self._kek.wrap(key)

    def open(self, user_id: UUID, wrapped: bytes) -> AESGCM:
        """Raises WrongKey."""
        if (key := self._opened.get(user_id)) is not None:
            self._opened.move_to_end(user_id)
        else:
            key = self._kek.unwrap(wrapped)
            self._remember(user_id, key)
        return AESGCM(key)

    def _remember(self, user_id: UUID, key: bytes) -> None:
        self._opened[user_id] = key
        if len(self._opened) > self._capacity:
            self._opened.popitem(last=False)


class Digester:
    """Keyed digests (HMAC-SHA256): what they are of cannot be guessed from the database alone."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def email_key(self, canonical_email: str) -> bytes:
        return hmac.digest(self._key, b"email\0" + canonical_email.encode(), "sha256")

    def request(self, canonical_request: bytes) -> bytes:
        return hmac.digest(self._key, b"request\0" + canonical_request, "sha256")


def read_key(path: Path | None, *, variable: str) -> bytes:
    """Read a 256-bit key; raises BadKeyFile, which says how to mend it."""
    remedy = "make one with: openssl rand -base64 32"
    if path is None:
        raise BadKeyFile(f"{variable} is not set: name a file with 32 bytes in base64 ({remedy})")
    try:
        key = base64.b64decode(path.read_text().strip(), validate=True)
    except OSError as error:
        raise BadKeyFile(f"{variable}: cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise BadKeyFile(f"{variable}: {path} is not base64 ({remedy})") from None
    if len(key) != KEY_BYTES:
        raise BadKeyFile(f"{variable}: {path} holds {len(key)} bytes, not {KEY_BYTES} ({remedy})")
    return key


def open_keyring(settings: Settings) -> Keyring:
    """Raises BadKeyFile."""
    return Keyring(Kek(read_key(settings.kek_file, variable="KEK_FILE")))


def open_digester(settings: Settings) -> Digester:
    """Raises BadKeyFile."""
    return Digester(read_key(settings.email_index_key_file, variable="EMAIL_INDEX_KEY_FILE"))
