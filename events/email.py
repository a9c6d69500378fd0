import unicodedata
from typing import Final

import idna

from runtime.fleeting import Fleeting

# encoding a domain takes longer than all the rest, and most users share few
_ENCODED: Final[Fleeting[str, str]] = Fleeting(capacity=4096)


def canonical_email(email: str) -> str:
    """The form in which two addresses are the same: trimmed, NFC, casefolded, the domain in IDNA 2008 ASCII (UTS 46).

    Expects an address that was validated; a domain that IDNA refuses is kept as it is rather than lost.
    """
    local, _, domain = unicodedata.normalize("NFC", email.strip()).rpartition("@")
    # casefolding can undo NFC, and NFC after it cannot undo casefolding
    local = unicodedata.normalize("NFC", local.casefold())
    return f"{local}@{_canonical_domain(domain)}"


def _canonical_domain(domain: str) -> str:
    if (encoded := _ENCODED.get(domain)) is None:
        encoded = _encoded(domain)
        _ENCODED.put(domain, encoded)
    return encoded


def _encoded(domain: str) -> str:
    try:
        return idna.encode(domain, uts46=True, transitional=False).decode("ascii").lower()
    except idna.IDNAError:
        return domain.casefold().lower()
