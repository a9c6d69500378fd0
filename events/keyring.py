import base64
import hashlib
import hmac
import secrets
import string
from collections.abc import Iterable
from itertools import pairwise
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from events.keks import Kek, Keks, KeyWrapper, WrongKey
from runtime.fleeting import Fleeting
from runtime.settings import BadSettings, Settings

__all__ = ["BadKey", "Digester", "Kek", "Keyring", "WrongKey", "open_digester", "open_keyring", "read_key"]

KEY_BYTES = 32
_TEXT = frozenset(string.printable.encode())


class BadKey(BadSettings):
    """A key is missing or is not 32 bytes in base64, or in production not random ones."""


class Keyring:
    """Opens users' data keys, remembering up to `capacity` of them for a few seconds (runtime/fleeting.py).

    Unwrapping costs more than the cipher.
    """

    def __init__(self, kek: KeyWrapper, *, capacity: int = 50_000) -> None:
        self._kek = kek if isinstance(kek, Keks) else Keks(kek)
        # the keys, not the ciphers made of them: those are ten times the size and soon made
        self._opened: Fleeting[UUID, bytes] = Fleeting(capacity=capacity)

    @property
    def kek(self) -> Keks:
        return self._kek

    @property
    def kek_id(self) -> str:
        """Of the one that wraps new keys."""
        return self._kek.id

    def knows(self, kek_id: str | None) -> bool:
        """Whether what this KEK wrapped opens here."""
        return kek_id in self._kek.ids

    def make(self, user_id: UUID) -> tuple[AESGCM, bytes]:
        """A new user's random 256-bit key: the cipher and the wrapped key to store."""
        key = secrets.token_bytes(KEY_BYTES)
        self._opened.put(user_id, key)
        return AESGCM(key), self._kek.wrap(key)

    def open(self, user_id: UUID, wrapped: bytes, kek_id: str | None = None) -> AESGCM:
        """`kek_id` is of the KEK that wrapped it, where that is known. Raises WrongKey."""
        if (key := self._opened.get(user_id)) is None:
            key = self._kek.unwrap(wrapped, kek_id)
            self._opened.put(user_id, key)
        return AESGCM(key)


class Digester:
    """Keyed digests (HMAC-SHA256): what they are of cannot be guessed from the database alone.

    Made with the current key. While another takes its place, what was made with one of the known ones counts too:
    `all` has a digester for each, the current one first.
    """

    def __init__(self, key: bytes, known: Iterable[bytes] = ()) -> None:
        self._key = key
        # names the key without telling anything of it
        self.id = hashlib.sha256(b"muster e-mail index key id\0" + key).hexdigest()[:16]
        self.others = tuple(Digester(other) for other in known if other != key)

    @property
    def all(self) -> "tuple[Digester, ...]":
        return (self, *self.others)

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(digester.id for digester in self.all)

    def email_key(self, canonical_email: str) -> bytes:
        return hmac.digest(self._key, b"email\0" + canonical_email.encode(), "sha256")

    def email_keys(self, canonical_email: str) -> dict[str, bytes]:
        """By the id of each key, the current one's first: the log says which of them its index is made with."""
        return {digester.id: digester.email_key(canonical_email) for digester in self.all}

    def keyed(self, purpose: bytes, value: bytes) -> bytes:
        """A digest that differs for each purpose; a purpose has no NUL in it."""
        return hmac.digest(self._key, purpose + b"\0" + value, "sha256")

    def request(self, canonical_request: bytes) -> bytes:
        return hmac.digest(self._key, b"request\0" + canonical_request, "sha256")

    def former_requests(self, canonical_request: bytes) -> tuple[bytes, ...]:
        """What `request` would have given with each of the other keys."""
        return tuple(digester.request(canonical_request) for digester in self.others)


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


def read_keys(encoded: SecretStr | None, *, variable: str, production: bool) -> list[bytes]:
    """Decode keys with commas, spaces or line ends between them; raises BadKey as `read_key` does."""
    found = encoded.get_secret_value().replace(",", " ").split() if encoded is not None else []
    return [read_key(SecretStr(one), variable=variable, production=production) for one in found]


def open_keyring(settings: Settings) -> Keyring:
    """The one place where the KEKs are opened; a key management service's would be made here. Raises BadKey."""
    production = settings.muster_mode == "production"
    current = Kek(read_key(settings.kek, variable="KEK", production=production))
    known = read_keys(settings.keks_known, variable="KEKS_KNOWN", production=production)
    return Keyring(Keks(current, map(Kek, known)))


def open_digester(settings: Settings) -> Digester:
    """Raises BadKey."""
    production = settings.muster_mode == "production"
    current = read_key(settings.email_index_key, variable="EMAIL_INDEX_KEY", production=production)
    known = read_keys(settings.email_index_keys_known, variable="EMAIL_INDEX_KEYS_KNOWN", production=production)
    return Digester(current, known)


def _is_placeholder(key: bytes) -> bool:
    """Whether a key is text, counts evenly or repeats itself; for a random one each is less likely than 1 in 10^12."""
    steps = {(after - before) % 256 for before, after in pairwise(key)}
    return all(byte in _TEXT for byte in key) or len(steps) == 1 or len(set(key)) < KEY_BYTES // 2
