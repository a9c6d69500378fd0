"""Key-encryption keys: each wraps the users' data keys and the signing keys, and none of them is in the database."""

import hashlib
from collections.abc import Iterable
from typing import Protocol

from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)


class WrongKey(Exception):
    """A wrapped key does not open under any KEK that is known here: another wrapped it, or it was altered."""


class KeyWrapper(Protocol):
    """The seam for a key management service: one key-encryption key, wherever it is.

    Called within the event loop, so it must not wait: one that is behind a network opens a key of its own there once,
    at start, and wraps with that.
    """

    @property
    def id(self) -> str:
        """Names the key in the database, the same in every process, and tells nothing of it."""
        ...

    def wrap(self, data_key: bytes) -> bytes: ...

    def unwrap(self, wrapped: bytes) -> bytes:
        """Raises WrongKey."""
        ...


class Kek:
    """A key-encryption key held in memory: AES-KWP (RFC 5649)."""

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
            raise WrongKey(f"a data key does not open under KEK {self.id}") from None


class Keks:
    """The key-encryption keys that a process knows: the current one wraps, and each opens what it wrapped."""

    def __init__(self, current: KeyWrapper, known: Iterable[KeyWrapper] = ()) -> None:
        self._current = current
        self._known = {kek.id: kek for kek in (current, *known)}

    @property
    def id(self) -> str:
        """The current one's."""
        return self._current.id

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(self._known)

    def wrap(self, data_key: bytes) -> bytes:
        return self._current.wrap(data_key)

    def unwrap(self, wrapped: bytes, kek_id: str | None = None) -> bytes:
        """Open a key that `kek_id` wrapped; without an id each that is known is tried. Raises WrongKey."""
        if kek_id is not None:
            if (kek := self._known.get(kek_id)) is None:
                raise WrongKey(self.lack([kek_id]))
            return kek.unwrap(wrapped)
        for kek in self._known.values():
            try:
                return kek.unwrap(wrapped)
            except WrongKey:
                continue
        raise WrongKey(
            f"a data key does not open under KEK {self._named()}: set KEK or KEK_FILE to the one this log was begun"
            " with, or add it to KEKS_KNOWN or KEKS_KNOWN_FILE"
        )

    def lack(self, kek_ids: Iterable[str]) -> str:
        """What to say when there are keys that these wrapped, none of which is known here."""
        return (
            f"this KEK is {self._named()}, and there are keys that {', '.join(sorted(kek_ids))} wrapped: set KEK or"
            " KEK_FILE to the one this log was begun with, or add it to KEKS_KNOWN or KEKS_KNOWN_FILE"
        )

    def _named(self) -> str:
        return ", nor under ".join(self._known)
