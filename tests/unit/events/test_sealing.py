import secrets
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from events.sealing import BrokenSeal, associated_data, seal, unseal
from tests.people import ADA_ID

CIPHER = AESGCM(secrets.token_bytes(32))
CONTENT = {"record": {"email": "ada@example.com"}, "changes": {}}
BOUND_TO = associated_data(user_id=ADA_ID, version=2, type_name="UserUpdated", schema=1, event_id=UUID(int=9))


def test_what_was_sealed_opens() -> None:
    assert unseal(CIPHER, seal(CIPHER, CONTENT, BOUND_TO), BOUND_TO) == CONTENT


def test_nothing_of_the_content_is_seen_from_outside() -> None:
    sealed = seal(CIPHER, CONTENT, BOUND_TO)
    assert b"ada" not in sealed
    assert sealed[:1] == b"\x01"


def test_the_same_content_is_never_sealed_alike() -> None:
    assert seal(CIPHER, CONTENT, BOUND_TO) != seal(CIPHER, CONTENT, BOUND_TO)


@pytest.mark.parametrize(
    "other",
    [
        associated_data(user_id=UUID(int=5), version=2, type_name="UserUpdated", schema=1, event_id=UUID(int=9)),
        associated_data(user_id=ADA_ID, version=3, type_name="UserUpdated", schema=1, event_id=UUID(int=9)),
        associated_data(user_id=ADA_ID, version=2, type_name="UserDeleted", schema=1, event_id=UUID(int=9)),
        associated_data(user_id=ADA_ID, version=2, type_name="UserUpdated", schema=2, event_id=UUID(int=9)),
        associated_data(user_id=ADA_ID, version=2, type_name="UserUpdated", schema=1, event_id=UUID(int=8)),
    ],
    ids=["user", "version", "type", "schema", "event id"],
)
def test_a_sealed_part_does_not_open_in_another_place(other: bytes) -> None:
    with pytest.raises(BrokenSeal):
        unseal(CIPHER, seal(CIPHER, CONTENT, BOUND_TO), other)


def test_no_altered_byte_opens() -> None:
    sealed = seal(CIPHER, CONTENT, BOUND_TO)
    for place in range(len(sealed)):
        altered = bytearray(sealed)
        altered[place] ^= 1
        with pytest.raises(BrokenSeal):
            unseal(CIPHER, bytes(altered), BOUND_TO)


@pytest.mark.parametrize("length", [0, 1, 5, 13, 20])
def test_no_shortened_part_opens(length: int) -> None:
    with pytest.raises(BrokenSeal):
        unseal(CIPHER, seal(CIPHER, CONTENT, BOUND_TO)[:length], BOUND_TO)


def test_another_users_key_does_not_open() -> None:
    with pytest.raises(BrokenSeal):
        unseal(AESGCM(secrets.token_bytes(32)), seal(CIPHER, CONTENT, BOUND_TO), BOUND_TO)
