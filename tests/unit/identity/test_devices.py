import secrets

import pytest

from events.keyring import Digester
from identity.devices import TEXT_LENGTH, device_of, new_device

DIGESTER = Digester(secrets.token_bytes(32))
ADA, BOB = b"a" * 32, b"b" * 32


def test_a_device_is_known_again_for_its_account_alone() -> None:
    token = new_device(DIGESTER, ADA)
    assert device_of(DIGESTER, ADA, token) is not None
    assert device_of(DIGESTER, BOB, token) is None
    assert device_of(Digester(secrets.token_bytes(32)), ADA, token) is None


def test_two_devices_of_an_account_are_two() -> None:
    one, other = new_device(DIGESTER, ADA), new_device(DIGESTER, ADA)
    assert device_of(DIGESTER, ADA, one) != device_of(DIGESTER, ADA, other)


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "mdt_",
        "x" * TEXT_LENGTH,
        "mdt_" + "A" * 64,
        "mdt_" + "!" * 64,
        "mdt_" + "é" * 64,
        "mdt_" + "A" * 10_000,
    ],
)
def test_what_is_no_device_token_names_none(token: str | None) -> None:
    assert device_of(DIGESTER, ADA, token) is None


def test_every_character_of_a_token_counts() -> None:
    token = new_device(DIGESTER, ADA)
    for place in range(len(token)):
        altered = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        assert device_of(DIGESTER, ADA, altered) is None
