"""What a new password must be, by NIST SP 800-63B rev. 4, section 3.1.1.2: any characters, long, and hard to expect."""

import unicodedata

from zxcvbn.frequency_lists import FREQUENCY_LISTS

from events.email import canonical_email

# NIST asks for at least 64; the bound only keeps a body's worth of text off the hash
MAX_PASSWORD_LENGTH = 1024
# settings allow no shorter password, so shorter ones need not be known
_LEAST_MIN_LENGTH = 8


class PasswordRefused(Exception):
    """The password is not one to take; the message tells its user what it must be."""


class PasswordTooShort(PasswordRefused):
    """The password has fewer characters than PASSWORD_MIN_LENGTH."""


class PasswordTooLong(PasswordRefused):
    """The password has more characters than any is taken with; it is never cut."""


class PasswordNotUnicode(PasswordRefused):
    """The password has a lone surrogate: no text that can be encoded."""


class PasswordTooCommon(PasswordRefused):
    """The password is among the first that a guesser tries."""


class PasswordContainsEmail(PasswordRefused):
    """The password has the user's e-mail address in it, or is the part of it before the @."""


def normalised(password: str) -> str:
    """The form whose UTF-8 is hashed: NFC, so that a password is the same from every keyboard.

    Raises PasswordTooLong and PasswordNotUnicode.
    """
    if len(password) > MAX_PASSWORD_LENGTH:
        raise PasswordTooLong(f"must have at most {MAX_PASSWORD_LENGTH} characters")
    try:
        password.encode()
    except UnicodeEncodeError:
        raise PasswordNotUnicode("must be valid Unicode text") from None
    return unicodedata.normalize("NFC", password)


def check_rules(password: str, *, min_length: int, email: str | None = None) -> None:
    """Raises a PasswordRefused; lengths are in code points, the least one of the normalised form.

    `email` is the user's own address, validated.
    """
    if len(normalised(password)) < min_length:
        raise PasswordTooShort(f"must have at least {min_length} characters")
    folded = _folded(password)
    if folded in _COMMON:
        raise PasswordTooCommon("must not be one of the most common passwords")
    if email and _contains_email(folded, email):
        raise PasswordContainsEmail("must not contain the user's e-mail address, nor be the part of it before the @")


def _contains_email(folded: str, email: str) -> bool:
    addresses = {_folded(email.strip()), _folded(canonical_email(email))}
    return any(address in folded or address.rpartition("@")[0] == folded for address in addresses)


def _folded(text: str) -> str:
    """Alike for texts that differ in case or in compatible forms only: fullwidth letters, ligatures."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


_COMMON = frozenset(
    _folded(password) for password in FREQUENCY_LISTS["passwords"] if len(password) >= _LEAST_MIN_LENGTH
)
