import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.proofs.notes import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    MAX_SIZE,
    BadCheckpoint,
    BadNote,
    BadVerifier,
    Checkpoint,
    Signer,
    Verifier,
    open_note,
    sign,
)

# the example of golang.org/x/mod/sumdb/note
PETER_SEED = bytes.fromhex("810a1402d5146c8d84f2443330f54080ebf98ee17d9c74f6252fc5d5c7283173")
PETER_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ENOCH_VKEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
NOTE = f"{TEXT}\n{PETER_LINE}".encode()
NO_BREAK = "Peter\u00a0Neumann"
BROKEN_PETER_LINE = PETER_LINE[:60] + "ABCD" + PETER_LINE[60:]

PETER, ENOCH = Verifier.parse(PETER_VKEY), Verifier.parse(ENOCH_VKEY)
ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
CHECKPOINT = f"example.com/behind-the-sofa\n20852163\n{ROOT}\n"

# spaces, line ends and other characters that only look like what the format is made of
lines = st.text("aé—+= \x7f\u0085\u00a0\u2028\ufeff\U0001f600", min_size=1)


def test_the_example_is_signed_and_opened_as_elsewhere() -> None:
    signer = Signer("PeterNeumann", PETER_SEED)
    assert signer.verifier == PETER
    assert PETER.id.hex() == "c74f20a3"
    assert sign(TEXT, [signer]) == NOTE
    assert open_note(NOTE, [PETER]) == TEXT


@pytest.mark.parametrize("verifiers", [[PETER], [ENOCH], [PETER, ENOCH], [ENOCH, PETER, ENOCH]])
def test_one_known_key_of_several_opens_a_note(verifiers: list[Verifier]) -> None:
    assert open_note(f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}".encode(), verifiers) == TEXT


def test_a_note_may_repeat_a_signature() -> None:
    assert open_note(f"{TEXT}\n{PETER_LINE}{PETER_LINE}".encode(), [PETER]) == TEXT


def test_a_note_is_signed_by_several() -> None:
    signers = [Signer(f"log.example/{name}", secrets.token_bytes(32)) for name in "ab"]
    note = sign("text\n", signers)
    for signer in signers:
        assert open_note(note, [signer.verifier]) == "text\n"
    assert note.startswith(b"text\n\n")
    assert note.decode().count("— log.example/") == 2


@pytest.mark.parametrize(
    "text", ["\n", "a\n\nb\n", "a\n\n", "\n\n\n", "— PeterNeumann AAAA\n", "a\n\n— b c\n", "ü\x7f\n"]
)
def test_a_text_with_empty_lines_or_like_a_signature_stays_whole(text: str) -> None:
    assert open_note(sign(text, [Signer("PeterNeumann", PETER_SEED)]), [PETER]) == text


@given(st.lists(lines | st.just(""), min_size=1, max_size=5))
def test_whatever_was_signed_is_opened(text: list[str]) -> None:
    written = "".join(f"{line}\n" for line in text)
    assert open_note(sign(written, [Signer("PeterNeumann", PETER_SEED)]), [PETER]) == written


def test_no_bit_of_a_note_can_be_flipped() -> None:
    for bit in range(len(NOTE) * 8):
        altered = bytearray(NOTE)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadNote):
            open_note(bytes(altered), [PETER])


@pytest.mark.parametrize(
    "verifier",
    [
        ENOCH,
        Verifier("CarmenSandiego", PETER.key),
        Verifier("PeterNeumann", ENOCH.key),
    ],
    ids=["another", "another name", "another key"],
)
def test_a_note_that_no_known_key_signed_is_refused(verifier: Verifier) -> None:
    with pytest.raises(BadNote, match="no known key"):
        open_note(NOTE, [verifier])
    with pytest.raises(BadNote, match="no known key"):
        open_note(NOTE, [])


@pytest.mark.parametrize(
    "signatures",
    [BROKEN_PETER_LINE, PETER_LINE + BROKEN_PETER_LINE, ENOCH_LINE + BROKEN_PETER_LINE],
    ids=["alone", "beside a valid one of the same key", "beside a valid one of another key"],
)
def test_an_invalid_signature_of_a_known_key_refuses_the_note(signatures: str) -> None:
    with pytest.raises(BadNote, match=r"PeterNeumann\+c74f20a3 is not valid"):
        open_note(f"{TEXT}\n{signatures}".encode(), [PETER, ENOCH])


def test_two_keys_that_a_signature_cannot_tell_apart_are_not_known_together() -> None:
    one, other = (Verifier("log.example", number.to_bytes(32)) for number in (19_719, 33_356))
    assert one.id == other.id
    with pytest.raises(ValueError, match=r"two keys are called log\.example\+f9381e5a"):
        open_note(NOTE, [PETER, one, other])


def test_an_invalid_signature_of_an_unknown_key_is_ignored() -> None:
    assert open_note(f"{TEXT}\n{ENOCH_LINE}{BROKEN_PETER_LINE}".encode(), [ENOCH]) == TEXT


def test_a_known_keys_signature_of_the_wrong_length_refuses_the_note() -> None:
    with pytest.raises(BadNote, match="not valid"):
        open_note(f"{TEXT}\n— PeterNeumann x08go/Y=\n".encode(), [PETER])


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\n\n",
        TEXT.encode(),
        f"{TEXT}\n".encode(),
        f"{TEXT}{PETER_LINE}".encode(),
        f"\n{PETER_LINE}".encode(),
        NOTE[:-1],
        NOTE + b"\n",
        NOTE + b"Unexpected line.\n",
        b"\x01" + NOTE,
        NOTE.replace(b"\n", b"\r\n"),
        b"\t" + NOTE,
        b"\xff" + NOTE,
        f"{TEXT}\n{PETER_LINE}".encode("utf-16"),
        f"{TEXT}\n{PETER_LINE.replace('—', '-')}".encode(),
        f"{TEXT}\n{PETER_LINE.removeprefix('— ')}".encode(),
        f"{TEXT}\n{PETER_LINE.replace('— ', '—')}".encode(),
        f"{TEXT}\n{PETER_LINE.replace('— ', '—  ')}".encode(),
        f"{TEXT}\n{PETER_LINE.replace('PeterNeumann', 'Peter Neumann')}".encode(),
        f"{TEXT}\n{PETER_LINE.replace('PeterNeumann', 'Peter+Neumann')}".encode(),
        f"{TEXT}\n{PETER_LINE.replace('PeterNeumann', NO_BREAK)}".encode(),
        f"{TEXT}\n{PETER_LINE.replace('=', '')}".encode(),
        f"{TEXT}\n{PETER_LINE.replace('M=', 'N=')}".encode(),
        f"{TEXT}\n{PETER_LINE.replace('/', '_')}".encode(),
        f"{TEXT}\n{PETER_LINE[:-1]} \n".encode(),
        f"{TEXT}\n{PETER_LINE}— Ada \n".encode(),
        f"{TEXT}\n{PETER_LINE}— Ada\n".encode(),
        f"{TEXT}\n{PETER_LINE}— Ada AAAAAA==\n".encode(),
    ],
)
def test_what_is_no_note_is_refused(message: bytes) -> None:
    with pytest.raises(BadNote):
        open_note(message, [PETER])


@pytest.mark.parametrize("text", [b"a\tb\n", b"a\r\n", b"\0\n"])
def test_a_text_with_control_characters_is_refused_even_if_it_was_signed(text: bytes) -> None:
    signed = Signer("PeterNeumann", PETER_SEED).line(text)
    with pytest.raises(BadNote, match="control characters"):
        open_note(text + b"\n" + signed.encode(), [PETER])


def test_a_note_has_bounds() -> None:
    assert open_note(f"{TEXT}\n{ENOCH_LINE * (MAX_SIGNATURES - 1)}{PETER_LINE}".encode(), [PETER]) == TEXT
    with pytest.raises(BadNote, match="more than 100 signatures"):
        open_note(f"{TEXT}\n{PETER_LINE * (MAX_SIGNATURES + 1)}".encode(), [PETER])
    with pytest.raises(BadNote, match="longer than"):
        open_note(b"a" * MAX_NOTE_BYTES + NOTE, [PETER])


@pytest.mark.parametrize("text", ["", "abc", "a\r\n", "a\tb\n", "\x00\n", "\ud800\n"])
def test_a_text_that_no_note_can_have_is_not_signed(text: str) -> None:
    with pytest.raises(BadNote):
        sign(text, [Signer("PeterNeumann", PETER_SEED)])


def test_a_note_that_could_not_be_opened_for_its_size_is_not_signed() -> None:
    with pytest.raises(BadNote, match="longer than"):
        sign("a" * MAX_NOTE_BYTES + "\n", [Signer("PeterNeumann", PETER_SEED)])


def test_a_note_is_signed_by_somebody() -> None:
    with pytest.raises(BadNote, match="nobody"):
        sign(TEXT, [])


def test_a_verifier_key_is_written_as_it_was_read() -> None:
    assert str(PETER) == PETER_VKEY
    assert str(ENOCH) == ENOCH_VKEY
    made = Signer("log.example/users", secrets.token_bytes(32)).verifier
    assert Verifier.parse(str(made)) == made


def test_no_part_of_a_verifier_key_and_none_with_another_character_is_one() -> None:
    parts = {PETER_VKEY[i:j] for i in range(len(PETER_VKEY)) for j in range(i, len(PETER_VKEY) + 1)} - {PETER_VKEY}
    altered = {f"{PETER_VKEY[:i]}{chr(ord(PETER_VKEY[i]) + 1)}{PETER_VKEY[i + 1 :]}" for i in range(len(PETER_VKEY))}
    for vkey in parts | altered:
        with pytest.raises(BadVerifier):
            Verifier.parse(vkey)


@pytest.mark.parametrize(
    "vkey",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        PETER_VKEY.replace("c74f20a3", "C74F20A3"),
        f"{PETER_VKEY}\n",
        f" {PETER_VKEY}",
        f"\udc80{PETER_VKEY}",
    ],
    ids=["too long", "of another algorithm", "in capitals", "with a newline", "with a space", "not of characters"],
)
def test_what_is_no_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(BadVerifier):
        Verifier.parse(vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb", "a\x01b", "\ud800"])
def test_a_key_has_a_name_that_a_note_can_carry(name: str) -> None:
    with pytest.raises(BadVerifier):
        Signer(name, PETER_SEED)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_is_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match=f"32 bytes, not {length}"):
        Signer("PeterNeumann", bytes(length))


def test_a_signer_does_not_show_its_seed() -> None:
    assert PETER_SEED.hex() not in repr(Signer("PeterNeumann", PETER_SEED))


def test_a_checkpoint_is_written_as_the_specification_does() -> None:
    checkpoint = Checkpoint.parse(CHECKPOINT)
    assert (checkpoint.origin, checkpoint.size, checkpoint.extensions) == ("example.com/behind-the-sofa", 20852163, ())
    assert checkpoint.root.hex() == "0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62"
    assert str(checkpoint) == CHECKPOINT


@given(lines, st.integers(0, MAX_SIZE), st.binary(min_size=32, max_size=32), st.lists(lines, max_size=3))
def test_a_checkpoint_is_read_back_from_a_note(origin: str, size: int, root: bytes, extensions: list[str]) -> None:
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    note = sign(str(checkpoint), [Signer("PeterNeumann", PETER_SEED)])
    assert Checkpoint.parse(open_note(note, [PETER])) == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a\n1\n",
        f"a\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"a\n\n{ROOT}\n",
        "a\n1\n\n",
        f"a\n01\n{ROOT}\n",
        f"a\n00\n{ROOT}\n",
        f"a\n-1\n{ROOT}\n",
        f"a\n+1\n{ROOT}\n",
        f"a\n 1\n{ROOT}\n",
        f"a\n1_0\n{ROOT}\n",
        f"a\n\u0661\n{ROOT}\n",
        f"a\n{MAX_SIZE + 1}\n{ROOT}\n",
        f"a\n{'9' * 5000}\n{ROOT}\n",
        f"a\n1\n{ROOT[:-1]}\n",
        f"a\n1\n{ROOT} \n",
        f"a\n1\n{ROOT.replace('I=', 'J=')}\n",
        f"a\n1\n{ROOT.replace('/', '_')}\n",
        "a\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxqw==\n",
        f"a\n1\n{ROOT}\n\n",
        f"a\n1\n{ROOT}\n\nb\n",
        f"a\n1\n{ROOT}\nb\tc\n",
        f"a\r\n1\r\n{ROOT}\r\n",
    ],
)
def test_what_is_not_exactly_a_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(BadCheckpoint):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    ("origin", "size", "root", "extensions"),
    [
        ("", 0, bytes(32), ()),
        ("a\nb", 0, bytes(32), ()),
        ("a", -1, bytes(32), ()),
        ("a", 0, bytes(31), ()),
        ("a", 0, bytes(32), ("",)),
        ("a", 0, bytes(32), ("b\nc",)),
    ],
)
def test_a_checkpoint_that_could_not_be_read_back_is_not_made(
    origin: str, size: int, root: bytes, extensions: tuple[str, ...]
) -> None:
    with pytest.raises(BadCheckpoint):
        Checkpoint(origin, size, root, extensions)
