import base64
import re
import secrets
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from events.keks import Keks
from events.keyring import BadKey, Digester, Kek, Keyring, WrongKey, open_digester, open_keyring, read_key
from runtime.settings import Settings

KEK = Kek(secrets.token_bytes(32))
NONCE = bytes(12)


def test_a_stored_key_opens_what_the_new_one_closed() -> None:
    made, wrapped = Keyring(KEK).make(UUID(int=1))
    opened = Keyring(KEK).open(UUID(int=1), wrapped)
    assert opened.decrypt(NONCE, made.encrypt(NONCE, b"secret", b""), b"") == b"secret"


def test_the_last_keys_are_remembered_and_older_ones_opened_again() -> None:
    keyring = Keyring(KEK, capacity=2)
    first, wrapped = keyring.make(UUID(int=1))
    closed = first.encrypt(NONCE, b"secret", b"")
    assert keyring.open(UUID(int=1), b"not looked at").decrypt(NONCE, closed, b"") == b"secret"
    keyring.make(UUID(int=2))
    keyring.make(UUID(int=3))
    with pytest.raises(WrongKey):
        keyring.open(UUID(int=1), b"looked at now")
    assert keyring.open(UUID(int=1), wrapped).decrypt(NONCE, closed, b"") == b"secret"


def test_a_key_that_another_kek_wrapped_is_refused_with_the_remedy() -> None:
    _, wrapped = Keyring(Kek(secrets.token_bytes(32))).make(UUID(int=1))
    with pytest.raises(WrongKey, match="set KEK or KEK_FILE to the one this log was begun with"):
        Keyring(KEK).open(UUID(int=1), wrapped)


def test_an_altered_wrapped_key_is_refused() -> None:
    _, wrapped = Keyring(KEK).make(UUID(int=1))
    with pytest.raises(WrongKey):
        Keyring(KEK).open(UUID(int=1), wrapped[:-1] + bytes([wrapped[-1] ^ 1]))


def test_a_kek_is_named_without_being_told() -> None:
    key = secrets.token_bytes(32)
    assert Kek(key).id == Kek(key).id
    assert Kek(key).id != KEK.id
    assert Kek(key).id not in key.hex()


def test_digests_depend_on_the_key_and_on_what_they_are_for() -> None:
    digester, other = Digester(b"k" * 32), Digester(b"l" * 32)
    assert digester.email_key("ada@example.com") == digester.email_key("ada@example.com")
    assert digester.email_key("ada@example.com") != other.email_key("ada@example.com")
    assert digester.email_key("ada@example.com") != digester.request(b"ada@example.com")


def in_base64(key: bytes) -> SecretStr:
    return SecretStr(base64.b64encode(key).decode())


def settings(**values: Any) -> Settings:  # noqa: ANN401 - of any field
    whole: dict[str, Any] = {"database_url": "postgresql://nowhere", "muster_mode": "production", **values}
    return Settings(**whole)


def test_a_key_is_read_with_what_white_space_is_around_it() -> None:
    key = secrets.token_bytes(32)
    encoded = SecretStr(f" {in_base64(key).get_secret_value()}\n")
    assert read_key(encoded, variable="KEK", production=True) == key


def test_the_keys_of_a_process_are_those_of_its_settings(tmp_path: Path) -> None:
    kek, email_index_key = secrets.token_bytes(32), secrets.token_bytes(32)
    (tmp_path / "email-index-key").write_text(f"{in_base64(email_index_key).get_secret_value()}\n")
    found = settings(kek=in_base64(kek), email_index_key_file=tmp_path / "email-index-key")
    assert open_keyring(found).kek_id == Kek(kek).id
    assert open_digester(found).email_key("ada@example.com") == Digester(email_index_key).email_key("ada@example.com")


@pytest.mark.parametrize("mode", ["production", "development", "test"])
@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (None, "is not set"),
        (SecretStr(" "), "holds 0 bytes, not 32"),
        (in_base64(bytes(16)), "holds 16 bytes, not 32"),
        (SecretStr("not base64!"), "is not base64"),
        (SecretStr("schlüssel"), "is not base64"),
    ],
)
def test_a_key_that_cannot_be_used_says_what_to_do(mode: str, encoded: SecretStr | None, message: str) -> None:
    remedy = "set {0} or {0}_FILE to 32 random bytes in base64 (openssl rand -base64 32)"
    unusable = settings(muster_mode=mode, kek=encoded, email_index_key=encoded)
    with pytest.raises(BadKey, match=re.escape(f"KEK {message}: {remedy.format('KEK')}")):
        open_keyring(unusable)
    with pytest.raises(BadKey, match=re.escape(f"EMAIL_INDEX_KEY {message}: {remedy.format('EMAIL_INDEX_KEY')}")):
        open_digester(unusable)


PLACEHOLDERS = [
    bytes(32),
    b"\xff" * 32,
    bytes(range(32)),
    bytes(range(32, 0, -1)),
    bytes(range(0, 256, 8)),
    b"\xde\xad\xbe\xef" * 8,
    b"this key is of 32 characters....",
    b"0123456789abcdef0123456789abcde\n",
]


@pytest.mark.parametrize("key", PLACEHOLDERS)
def test_a_key_that_is_plainly_not_random_is_refused_in_production(key: bytes) -> None:
    encoded = in_base64(key)
    with pytest.raises(
        BadKey, match=r"^KEK is a placeholder, which production refuses: set KEK or KEK_FILE"
    ) as refused:
        open_keyring(settings(kek=encoded))
    assert encoded.get_secret_value() not in str(refused.value)
    with pytest.raises(BadKey, match=r"^EMAIL_INDEX_KEY is a placeholder"):
        open_digester(settings(email_index_key=encoded))


@pytest.mark.parametrize("mode", ["development", "test"])
@pytest.mark.parametrize("key", PLACEHOLDERS)
def test_and_taken_elsewhere(key: bytes, mode: str) -> None:
    found = settings(muster_mode=mode, kek=in_base64(key), email_index_key=in_base64(key))
    assert open_keyring(found).kek_id == Kek(key).id
    open_digester(found)


def test_a_random_key_is_never_taken_for_a_placeholder() -> None:
    for _ in range(1000):
        read_key(in_base64(secrets.token_bytes(32)), variable="KEK", production=True)


def test_the_current_kek_wraps_and_every_known_one_opens() -> None:
    former, current = Kek(secrets.token_bytes(32)), Kek(secrets.token_bytes(32))
    _, wrapped = Keyring(former).make(UUID(int=1))
    keyring = Keyring(Keks(current, [former]))
    made, wrapped_anew = keyring.make(UUID(int=2))
    assert (keyring.kek_id, keyring.kek.ids) == (current.id, {current.id, former.id})
    assert (keyring.knows(former.id), keyring.knows(KEK.id), keyring.knows(None)) == (True, False, False)
    closed = made.encrypt(NONCE, b"secret", b"")
    assert Keyring(current).open(UUID(int=2), wrapped_anew).decrypt(NONCE, closed, b"") == b"secret"
    for kek_id in (former.id, None):
        Keyring(keyring.kek).open(UUID(int=1), wrapped, kek_id)


def test_a_key_is_opened_by_the_kek_that_its_row_names() -> None:
    current, former = Counting(), Counting()
    keks = Keks(current, [former])
    wrapped = former.wrap(bytes(32))
    assert keks.unwrap(wrapped, former.id) == bytes(32)
    assert (current.asked, former.asked) == (0, 1)
    # the row says another than did it: it was altered
    with pytest.raises(WrongKey):
        keks.unwrap(wrapped, current.id)
    with pytest.raises(WrongKey, match=f"this KEK is {current.id}.*that {KEK.id} wrapped.*KEKS_KNOWN"):
        keks.unwrap(KEK.wrap(bytes(32)), KEK.id)


class Counting:
    """A key that is somewhere else: what a key management service's would be."""

    def __init__(self) -> None:
        self._kek = Kek(secrets.token_bytes(32))
        self.asked = 0

    @property
    def id(self) -> str:
        return self._kek.id

    def wrap(self, data_key: bytes) -> bytes:
        return self._kek.wrap(data_key)

    def unwrap(self, wrapped: bytes) -> bytes:
        self.asked += 1
        return self._kek.unwrap(wrapped)


@pytest.mark.parametrize("between", ["\n", ",", " , ", "\r\n"])
def test_several_keys_are_known_with_commas_or_a_line_each(between: str) -> None:
    current, *others = (secrets.token_bytes(32) for _ in range(3))
    known = SecretStr(between.join(in_base64(key).get_secret_value() for key in others))
    found = settings(
        kek=in_base64(current), keks_known=known, email_index_key=in_base64(current), email_index_keys_known=known
    )
    assert open_keyring(found).kek.ids == {Kek(key).id for key in (current, *others)}
    assert open_digester(found).ids == {Digester(key).id for key in (current, *others)}
    assert open_digester(found).id == Digester(current).id


def test_a_known_key_that_is_none_is_refused() -> None:
    with pytest.raises(BadKey, match="KEKS_KNOWN holds 5 bytes"):
        open_keyring(settings(kek=in_base64(secrets.token_bytes(32)), keks_known=SecretStr("c2hvcnQ=")))


def test_digests_with_other_keys_are_told_by_the_keys_ids() -> None:
    key, other = secrets.token_bytes(32), secrets.token_bytes(32)
    digester = Digester(key, [other, key])
    assert digester.email_keys("ada@example.com") == {
        Digester(one).id: Digester(one).email_key("ada@example.com") for one in (key, other)
    }
    assert next(iter(digester.email_keys("ada@example.com"))) == digester.id
    assert digester.former_requests(b"body") == (Digester(other).request(b"body"),)
    assert Digester(key).id != Kek(key).id
