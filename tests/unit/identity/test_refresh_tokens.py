import base64
import hashlib
import hmac
import string
from uuid import UUID

import pytest

from identity.refresh_tokens import PREFIX, TEXT_LENGTH, RefreshToken
from runtime.ids import new_id

TOKEN = RefreshToken(session=UUID(int=7), family=bytes(range(16)), secret=bytes(range(100, 132)))
ALPHABET = string.ascii_letters + string.digits + "-_"


def test_a_token_is_read_as_it_was_written() -> None:
    for _ in range(100):
        token = RefreshToken.first(new_id())
        assert RefreshToken.parse(token.text) == token


def test_a_token_is_text_that_forms_and_headers_carry_as_it_is() -> None:
    assert TOKEN.text.startswith(PREFIX)
    assert len(TOKEN.text) == TEXT_LENGTH
    assert set(TOKEN.text) <= set(ALPHABET)


def test_a_token_is_256_random_bits_beside_its_session_and_family() -> None:
    session = new_id()
    tokens = [RefreshToken.first(session) for _ in range(100)]
    assert {token.session for token in tokens} == {session}
    assert len({token.family for token in tokens}) == len({token.secret for token in tokens}) == 100
    assert {(len(token.family), len(token.secret)) for token in tokens} == {(16, 32)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        PREFIX,
        "mrt",
        TOKEN.text[:-1],
        TOKEN.text + "A",
        TOKEN.text + "=",
        f" {TOKEN.text[1:]}",
        TOKEN.text + "\n",
        TOKEN.text[:-1] + "\n",
        "MRT_" + TOKEN.text.removeprefix(PREFIX),
        TOKEN.text.removeprefix(PREFIX) + "AAAA",
        TOKEN.text[:20] + "+" + TOKEN.text[21:],
        TOKEN.text[:20] + "/" + TOKEN.text[21:],
        TOKEN.text[:20] + "=" + TOKEN.text[21:],
        TOKEN.text[:20] + "\0" + TOKEN.text[21:],
        TOKEN.text[:20] + "é" + TOKEN.text[21:],
        TOKEN.text[:20] + "\udc80" + TOKEN.text[21:],
        TOKEN.text[:20] + "\u0661" + TOKEN.text[21:],
        TOKEN.text * 1000,
    ],
)
def test_what_is_no_token_is_none(text: str) -> None:
    assert RefreshToken.parse(text) is None


def test_a_token_is_written_in_one_way_only() -> None:
    spellings = [TOKEN.text[:-1] + last for last in ALPHABET]
    assert [text for text in spellings if RefreshToken.parse(text) == TOKEN] == [TOKEN.text]
    # of its six bits two are the token's: the other four are zero
    assert sum(RefreshToken.parse(text) is not None for text in spellings) == len(ALPHABET) // 16


def test_the_next_token_is_made_of_the_one_before_and_of_salt() -> None:
    salt = b"s" * 32
    following = TOKEN.next(salt)
    assert following == TOKEN.next(salt)
    assert (following.session, following.family) == (TOKEN.session, TOKEN.family)
    assert following.secret == hmac.new(TOKEN.secret, salt, hashlib.sha256).digest()
    assert len({TOKEN.secret, following.secret, TOKEN.next(b"t" * 32).secret, following.next(salt).secret}) == 4


def test_hashes_are_of_the_random_parts_alone() -> None:
    assert TOKEN.secret_hash == hashlib.sha256(TOKEN.secret).digest()
    assert TOKEN.family_hash == hashlib.sha256(TOKEN.family).digest()
    raw = base64.urlsafe_b64decode(TOKEN.text.removeprefix(PREFIX) + "==")
    assert raw == TOKEN.session.bytes + TOKEN.family + TOKEN.secret
