"""Signed texts (C2SP signed-note, Ed25519) and what a log signs of itself (C2SP tlog-checkpoint)."""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from events.proofs.merkle import HASH_BYTES

SEED_BYTES: Final = 32
KEY_BYTES: Final = 32
# sixteen signatures must be accepted, of which a post-quantum one takes some 6 kB
MAX_NOTE_BYTES: Final = 1_000_000
MAX_SIGNATURES: Final = 100
# positions of a log are signed 64-bit integers
MAX_SIZE: Final = 2**63 - 1

_ED25519: Final = b"\x01"
_ID_BYTES: Final = 4
_DASH: Final = "\N{EM DASH} "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


class BadNote(Exception):
    """A note is not well formed, or not validly signed by a known key."""


class BadCheckpoint(Exception):
    """A text is not a checkpoint's."""


class BadVerifier(ValueError):
    """A verifier key is not `<name>+<key id>+<key>` of an Ed25519 key."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key that notes are checked against; its text form is the vkey. Raises BadVerifier."""

    name: str
    key: bytes

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise BadVerifier(
                f"{self.name!r} is not a key name: it is empty, or has a space, a plus or a control in it"
            )
        if len(self.key) != KEY_BYTES:
            raise BadVerifier(f"an Ed25519 public key is {KEY_BYTES} bytes, not {len(self.key)}")

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Raises BadVerifier."""
        name, _, rest = vkey.partition("+")
        key_id, _, encoded = rest.partition("+")
        typed = _from_base64(encoded)
        if typed is None or typed[:1] != _ED25519:
            raise BadVerifier("the verifier key is not <name>+<key id>+<base64 of an Ed25519 key>")
        verifier = cls(name, typed[1:])
        if verifier.id.hex() != key_id:
            raise BadVerifier(f"the verifier key's id is {verifier.id.hex()}, not {key_id}: it was altered")
        return verifier

    @property
    def id(self) -> bytes:
        """4 bytes that, with the name, say which key signed."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.key).digest()[:_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{_to_base64(_ED25519 + self.key)}"

    def verifies(self, text: bytes, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, text)
        except InvalidSignature:
            return False
        return True


class Signer:
    """A private key that signs notes, made of its 32 byte seed (RFC 8032 section 5.1.5).

    Raises ValueError for another length, BadVerifier for what is no key name.
    """

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError(f"an Ed25519 seed is {SEED_BYTES} bytes, not {len(seed)}")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(name, self._key.public_key().public_bytes_raw())

    def line(self, text: bytes) -> str:
        return f"{_DASH}{self.verifier.name} {_to_base64(self.verifier.id + self._key.sign(text))}\n"


def sign(text: str, signers: Sequence[Signer]) -> bytes:
    """The note. Raises BadNote for a text that no note can have, or without signers."""
    if not text.endswith("\n"):
        raise BadNote("a note's text ends with a newline")
    if not signers:
        raise BadNote("nobody signs the note")
    signed = _encode(text)
    note = signed + b"\n" + "".join(signer.line(signed) for signer in signers).encode()
    _check_length(note)
    return note


def open_note(message: bytes, verifiers: Iterable[Verifier]) -> str:
    """The text, which at least one of the verifiers has signed, and none of them invalidly.

    Raises BadNote, and ValueError for two verifiers of one name and id.
    """
    known: dict[tuple[str, bytes], Verifier] = {}
    for verifier in verifiers:
        if known.setdefault((verifier.name, verifier.id), verifier) != verifier:
            raise ValueError(f"two keys are called {verifier.name}+{verifier.id.hex()}")
    text, lines = _split(message)
    signed, valid = text.encode(), False
    for line in lines:
        name, key_id, signature = _parse_line(line)
        if (verifier := known.get((name, key_id))) is None:
            continue
        if not verifier.verifies(signed, signature):
            raise BadNote(f"the signature of {name}+{key_id.hex()} is not valid")
        valid = True
    if not valid:
        raise BadNote("no known key signed the note")
    return text


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The root of a log's tree at a size; its text form is what is signed. Raises BadCheckpoint."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(line and min(line) >= " " for line in (self.origin, *self.extensions)):
            raise BadCheckpoint("an origin or an extension is a line that is not empty and has no control characters")
        if not 0 <= self.size <= MAX_SIZE:
            raise BadCheckpoint(f"a tree has 0 to {MAX_SIZE} leaves")
        if len(self.root) != HASH_BYTES:
            raise BadCheckpoint(f"a root is {HASH_BYTES} bytes, not {len(self.root)}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Only the one form that `str` gives. Raises BadCheckpoint."""
        match text.split("\n"):
            case [origin, size, encoded, *extensions, ""]:
                root = _from_base64(encoded)
                if not _DECIMAL.fullmatch(size):
                    raise BadCheckpoint("the second line is not a size in decimal digits")
                if root is None:
                    raise BadCheckpoint("the third line is not a root in base64")
                return cls(origin, int(size), root, tuple(extensions))
            case _:
                raise BadCheckpoint("a checkpoint is at least three lines, each with a newline")

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), _to_base64(self.root), *self.extensions))


def _is_name(name: str) -> bool:
    return name != "" and not any(
        each < " " or each == "+" or each.isspace() or "\ud800" <= each <= "\udfff" for each in name
    )


def _check_length(note: bytes) -> None:
    if len(note) > MAX_NOTE_BYTES:
        raise BadNote(f"the note is longer than {MAX_NOTE_BYTES} bytes")


def _encode(text: str) -> bytes:
    if _CONTROL.search(text):
        raise BadNote("the note has control characters")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadNote("the note is not UTF-8") from None


def _split(message: bytes) -> tuple[str, list[str]]:
    _check_length(message)
    try:
        note = message.decode()
    except UnicodeDecodeError:
        raise BadNote("the note is not UTF-8") from None
    if _CONTROL.search(note):
        raise BadNote("the note has control characters")
    text, blank, signatures = note.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise BadNote("the note has no signature lines after an empty line")
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise BadNote(f"the note has more than {MAX_SIGNATURES} signatures")
    return text + "\n", lines


def _parse_line(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    decoded = _from_base64(encoded)
    if not line.startswith(_DASH) or not _is_name(name) or decoded is None or len(decoded) <= _ID_BYTES:
        raise BadNote("a signature line is not an em dash, a key name and a signature in base64")
    return name, decoded[:_ID_BYTES], decoded[_ID_BYTES:]


def _to_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _from_base64(encoded: str) -> bytes | None:
    """None for what is not standard base64 (RFC 4648 section 4) in its one canonical form."""
    try:
        content = base64.b64decode(encoded, validate=True)
    except ValueError:
        return None
    return content if _to_base64(content) == encoded else None
