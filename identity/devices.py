"""Devices that a user has logged in from before: whoever guesses elsewhere cannot hold them up.

A device token names one account and one device, without a record of either: 128 random bits and an HMAC over them and
the account. Tries with it are counted by the device alone. It proves nothing else: no password can be spared with it,
and a stolen one gives its thief a few tries at one account. After OWASP, "Slow Down Online Guessing Attacks with Device
Cookies".
"""

import base64
import hmac
import secrets
from typing import Final

from events.keyring import Digester

PREFIX: Final = "mdt_"
DEVICE_BYTES: Final = 16
MAC_BYTES: Final = 32
TEXT_LENGTH: Final = len(PREFIX) + 64


def new_device(digester: Digester, account: bytes) -> str:
    """The token of a device that just logged in to this account."""
    device = secrets.token_bytes(DEVICE_BYTES)
    return PREFIX + base64.urlsafe_b64encode(device + _mac(digester, account, device)).decode()


def device_of(digester: Digester, account: bytes, token: str | None) -> bytes | None:
    """The device that a token names; None for a token that is not of this account, or is none."""
    if token is None or len(token) != TEXT_LENGTH or not token.startswith(PREFIX):
        return None
    try:
        raw = base64.b64decode(token.removeprefix(PREFIX), altchars=b"-_", validate=True)
    except ValueError:
        return None
    device, mac = raw[:DEVICE_BYTES], raw[DEVICE_BYTES:]
    return device if hmac.compare_digest(mac, _mac(digester, account, device)) else None


def _mac(digester: Digester, account: bytes, device: bytes) -> bytes:
    return digester.keyed(b"device", account + device)
