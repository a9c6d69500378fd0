import base64
import secrets
from pathlib import Path
from uuid import UUID

import pytest

from events.keyring import BadKeyFile, Digester, Kek, Keyring, WrongKey, read_key

KEK = Kek(secrets.token_bytes(32))
NONCE = bytes(12)


def test_a_stored_key_opens_what_the_new_one_closed() -> None:
    made, wrapped = Keyring(KEK).make(UUID(int=1))
    opened = Keyring(KEK).open(UUID(int=1), wrapped)
    assert opened.decrypt(NONCE, made.encrypt(NONCE, b"secret", b""), b"") == b"secret"


def test_the_last_keys_are_remembered_and_older_ones_opened_again() -> None:
    keyring = Keyring(KEK, capacity=1)
    first, wrapped = keyring.make(UUID(int=1))
    closed = first.encrypt(NONCE, b"secret", b"")
    assert keyring.open(UUID(int=1), b"not looked at").decrypt(NONCE, closed, b"") == b"secret"
    keyring.make(UUID(int=2))
    with pytest.raises(WrongKey):
        keyring.open(UUID(int=1), b"looked at now")
    assert keyring.open(UUID(int=1), wrapped).decrypt(NONCE, closed, b"") == b"secret"


def test_a_key_that_another_kek_wrapped_is_refused_with_the_remedy() -> None:
    _, wrapped = Keyring(Kek(secrets.token_bytes(32))).make(UUID(int=1))
    with pytest.raises(WrongKey, match="set KEK_FILE to the file that this log was begun with"):
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


def test_a_key_file_is_read_with_its_line_end(tmp_path: Path) -> None:
    key = secrets.token_bytes(32)
    (tmp_path / "kek").write_text(base64.b64encode(key).decode() + "\n")
    assert read_key(tmp_path / "kek", variable="KEK_FILE") == key


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds 0 bytes, not 32"),
        (base64.b64encode(bytes(16)), "holds 16 bytes, not 32"),
        (b"not base64!", "is not base64"),
        (b"\xff\xfe\x00", "is not base64"),
        ("schlüssel".encode(), "is not base64"),
    ],
)
def test_a_key_file_that_cannot_be_used_says_what_to_do(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "kek").write_bytes(content)
    with pytest.raises(BadKeyFile, match=message) as refused:
        read_key(tmp_path / "kek", variable="KEK_FILE")
    assert str(refused.value).startswith("KEK_FILE: ")
    assert "openssl rand -base64 32" in str(refused.value)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadKeyFile, match=r"KEK_FILE: cannot read .*/absent: No such file"):
        read_key(tmp_path / "absent", variable="KEK_FILE")


def test_a_key_file_that_was_not_named_is_asked_for() -> None:
    with pytest.raises(BadKeyFile, match="KEK_FILE is not set: name a file"):
        read_key(None, variable="KEK_FILE")
