"""The stored forms of passwords that are verified here: our own, and those that other systems bring."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

MAX_HASH_LENGTH = 512
MAX_MEMORY_KIB = 256 * 1024
MAX_ARGON2_PASSES = 16
MAX_BCRYPT_COST = 15
MAX_SCRYPT_BLOCK_SIZE = 64
MAX_LANES = 16

_UNKNOWN = (
    f"must be an argon2 ($argon2id$, $argon2i$, $argon2d$), bcrypt ($2a$, $2b$, $2y$) or scrypt ($scrypt$, $7$) hash"
    f" of at most {MAX_HASH_LENGTH} ASCII characters"
)
_ARGON2 = re.compile(
    r"\$argon2(?:id|i|d)\$(?:v=(?:16|19)\$)?"
    r"m=([1-9][0-9]{0,6}),t=([1-9][0-9]?),p=([1-9][0-9]?)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)
_ARGON2_ACCEPTED = (
    "an argon2 hash must be $argon2id$v=19$m=M,t=T,p=P$salt$hash, argon2i and argon2d alike, with at least 8 bytes of"
    f" salt and 12 of hash in base64, M from 8 * P to {MAX_MEMORY_KIB} (KiB), T up to {MAX_ARGON2_PASSES}"
    f" and P up to {MAX_LANES}"
)
# the last characters of salt and hash hold fewer than 6 bits: the rest must be 0
_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]")
_BCRYPT_ACCEPTED = (
    f"a bcrypt hash must be $2a$, $2b$ or $2y$, a cost from 04 to {MAX_BCRYPT_COST:02}, $,"
    " and 53 characters of salt and hash"
)
_BCRYPT_PASSWORD_BYTES = 72
_PHC_SCRYPT = re.compile(
    r"\$scrypt\$ln=([1-9][0-9]?),r=([1-9][0-9]{0,3}),p=([1-9][0-9]?)\$([A-Za-z0-9+/.]*)\$([A-Za-z0-9+/.]+)"
)
_CRYPT_SCRYPT = re.compile(
    r"\$7\$([./0-9A-Za-z])([./0-9A-Za-z]{5})([./0-9A-Za-z]{5})([!-#%-~]*)\$([./0-9A-Za-z]{42}[./0-9A-D])"
)
_SCRYPT_ACCEPTED = (
    "a scrypt hash must be $scrypt$ln=LN,r=R,p=P$salt$hash, with at least 12 bytes of hash in base64, or the $7$ of"
    f" crypt(3), with N = 2^LN from 2 and below 2^(16 * R), 128 * N * R * P up to {MAX_MEMORY_KIB // 1024} MiB,"
    f" R up to {MAX_SCRYPT_BLOCK_SIZE} and P up to {MAX_LANES}"
)
_CRYPT_DIGITS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# the PHC string format's bounds for argon2; fewer bytes of hash would soon fit any password
_MIN_SALT_BYTES = 8
_MIN_HASH_BYTES = 12


class UnusableHash(Exception):
    """The stored form of a password is of no known format, or asks for too much; the message says what is accepted."""


def check_usable(stored: str) -> None:
    """Raises UnusableHash for what `verify` would not take; costs next to nothing."""
    _verifier(stored)


def verify(stored: str, password: str) -> bool:
    """Whether `stored` was made of the password's UTF-8, in constant time; blocks for as long as its parameters ask.

    Of bcrypt only the first 72 bytes of the password count, as when the hash was made. Raises UnusableHash.
    """
    verifies = _verifier(stored)
    try:
        return verifies(password.encode())
    except UnicodeEncodeError:
        return False


def _verifier(stored: str) -> Callable[[bytes], bool]:
    if len(stored) > MAX_HASH_LENGTH or not stored.isascii():
        raise UnusableHash(_UNKNOWN)
    match stored.split("$")[:2]:
        case ["", "argon2id" | "argon2i" | "argon2d"]:
            return _argon2(stored)
        # not $2x$: it marks hashes by a crypt_blowfish that mistook 8-bit characters, which fit several passwords
        case ["", "2a" | "2b" | "2y"]:
            return _bcrypt(stored)
        case ["", "scrypt"]:
            return _phc_scrypt(stored)
        case ["", "7"]:
            return _crypt_scrypt(stored)
        case _:
            raise UnusableHash(_UNKNOWN)


def _argon2(stored: str) -> Callable[[bytes], bool]:
    found = _ARGON2.fullmatch(stored)
    if found is None:
        raise UnusableHash(_ARGON2_ACCEPTED)
    memory, passes, lanes = (int(number) for number in found.groups()[:3])
    salt, tag = _base64(found[4]), _base64(found[5])
    if (
        not 8 * lanes <= memory <= MAX_MEMORY_KIB
        or passes > MAX_ARGON2_PASSES
        or lanes > MAX_LANES
        or salt is None
        or tag is None
        or len(salt) < _MIN_SALT_BYTES
        or len(tag) < _MIN_HASH_BYTES
    ):
        raise UnusableHash(_ARGON2_ACCEPTED)

    def verifies(password: bytes) -> bool:
        try:
            return PasswordHasher().verify(stored, password)
        except VerifyMismatchError:
            return False

    return verifies


def _bcrypt(stored: str) -> Callable[[bytes], bool]:
    found = _BCRYPT.fullmatch(stored)
    if found is None or not 4 <= int(found[1]) <= MAX_BCRYPT_COST:  # noqa: PLR2004 - bcrypt's own least cost
        raise UnusableHash(_BCRYPT_ACCEPTED)
    # bcrypt 5 refuses longer passwords; whatever made the hash cut them
    return lambda password: bcrypt.checkpw(password[:_BCRYPT_PASSWORD_BYTES], stored.encode())


def _phc_scrypt(stored: str) -> Callable[[bytes], bool]:
    found = _PHC_SCRYPT.fullmatch(stored)
    if found is None:
        raise UnusableHash(_SCRYPT_ACCEPTED)
    log_n, r, p = (int(number) for number in found.groups()[:3])
    # passlib also writes base64 with . for +
    salt, digest = _base64(found[4].replace(".", "+")), _base64(found[5].replace(".", "+"))
    if salt is None or digest is None or len(digest) < _MIN_HASH_BYTES:
        raise UnusableHash(_SCRYPT_ACCEPTED)
    return _scrypt(log_n=log_n, r=r, p=p, salt=salt, digest=digest)


def _crypt_scrypt(stored: str) -> Callable[[bytes], bool]:
    """$7$: a digit of log2 N, five of r, five of p, the salt as it is, and 256 bits of hash, least digits first."""
    found = _CRYPT_SCRYPT.fullmatch(stored)
    if found is None:
        raise UnusableHash(_SCRYPT_ACCEPTED)
    log_n, r, p = (_crypt_number(digits) for digits in found.groups()[:3])
    return _scrypt(log_n=log_n, r=r, p=p, salt=found[4].encode(), digest=_crypt_number(found[5]).to_bytes(32, "little"))


def _scrypt(*, log_n: int, r: int, p: int, salt: bytes, digest: bytes) -> Callable[[bytes], bool]:
    """RFC 7914, with the names it gives the parameters."""
    n = 1 << log_n
    if (
        not 1 <= log_n < 16 * r
        or not 1 <= r <= MAX_SCRYPT_BLOCK_SIZE
        or not 1 <= p <= MAX_LANES
        or 128 * n * r * p > MAX_MEMORY_KIB * 1024
    ):
        raise UnusableHash(_SCRYPT_ACCEPTED)

    def verifies(password: bytes) -> bool:
        memory = 128 * r * (n + p + 2)
        found = hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=len(digest))
        return hmac.compare_digest(found, digest)

    return verifies


def _base64(text: str) -> bytes | None:
    """Standard base64 without its padding; None for any text that encoding the same bytes would not give."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None
    return decoded if base64.b64encode(decoded).rstrip(b"=") == text.encode() else None


def _crypt_number(digits: str) -> int:
    return sum(_CRYPT_DIGITS.index(digit) << 6 * place for place, digit in enumerate(digits))
