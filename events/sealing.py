"""The personal part of an event, readable only with the user's own key.

sealed  = format (1 byte, 0x01) | nonce (12 bytes, random) | AES-256-GCM ciphertext and tag (NIST SP 800-38D)
AAD     = user id (16) | version (4, big-endian) | schema (2) | event id (16) | type (UTF-8)
content = JSON {"record": {email, display_name, attributes}, "changes": {name: {"old", "new"}}}
"""

import os
import struct
from typing import Any
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = b"\x01"
NONCE_BYTES = 12
SHORTEST = 1 + NONCE_BYTES + 16


class BrokenSeal(Exception):
    """A sealed part does not open: it or the fields it is bound to were altered, or it is of an unknown format."""


def associated_data(*, user_id: UUID, version: int, type_name: str, schema: int, event_id: UUID) -> bytes:
    return b"".join((user_id.bytes, struct.pack(">IH", version, schema), event_id.bytes, type_name.encode()))


def seal(cipher: AESGCM, content: Any, bound_to: bytes) -> bytes:  # noqa: ANN401 - a JSON document
    nonce = os.urandom(NONCE_BYTES)
    return FORMAT + nonce + cipher.encrypt(nonce, orjson.dumps(content), bound_to)


def unseal(cipher: AESGCM, sealed: bytes, bound_to: bytes) -> Any:  # noqa: ANN401 - a JSON document
    """Raises BrokenSeal."""
    if sealed[:1] != FORMAT:
        raise BrokenSeal(f"sealed format {sealed[:1].hex()} is not known here")
    if len(sealed) < SHORTEST:
        raise BrokenSeal("the sealed part was cut off")
    nonce, ciphertext = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    try:
        return orjson.loads(cipher.decrypt(nonce, ciphertext, bound_to))
    except InvalidTag:
        raise BrokenSeal("the sealed part does not open under the user's key") from None
