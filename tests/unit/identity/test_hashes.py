import ctypes
import ctypes.util
from base64 import b64encode
from typing import Any

import bcrypt
import pytest
from argon2 import PasswordHasher
from argon2.low_level import Type
from hypothesis import given, settings
from hypothesis import strategies as st

from identity.hashes import UnusableHash, check_usable, verify

SALT, TAG = "c29tZXNhbHQ", "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
BCRYPT_SALT_AND_HASH = "CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
CRYPT_HASH = "ENlyo6fGw4PCcDBOFepfSZjFUnVatHzCcW55.ZGz3B0"

ARGON2 = {
    # test.c of the reference implementation
    f"$argon2id$v=19$m=256,t=2,p=1${SALT}${TAG}": "password",
    f"$argon2i$v=19$m=256,t=2,p=1${SALT}$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8": "password",
    f"$argon2i$v=19$m=256,t=2,p=2${SALT}$T/XOJ2mh1/TIpJHfCdQan76Q5esCFVoT5MAeIM1Oq2E": "password",
    f"$argon2i$v=16$m=256,t=2,p=1${SALT}$/U3YPXYsSb3q9XxHvc0MLxur+GP960kN9j7emXX8zwY": "password",
    f"$argon2i$m=256,t=2,p=1${SALT}$/U3YPXYsSb3q9XxHvc0MLxur+GP960kN9j7emXX8zwY": "password",
    # argon2-cffi
    "$argon2d$v=19$m=8,t=1,p=1$svfsaLlTHiY+3UyKx0QJfA$oRS2PZ1C5Eazul/RfChvtPvBfbo7WJZ7kyEhliq+a3A": "password",
}
BCRYPT = {
    # wrapper.c of crypt_blowfish
    f"$2a$05${BCRYPT_SALT_AND_HASH}": "U*U",
    f"$2b$05${BCRYPT_SALT_AND_HASH}": "U*U",
    f"$2y$05${BCRYPT_SALT_AND_HASH}": "U*U",
    "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK": "U*U*",
    "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a": "U*U*U",
    "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui": (
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored"
    ),
    "$2y$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy": "",
}
SCRYPT = {
    # the documentation of passlib
    "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E": "password",
    "$scrypt$ln=8,r=8,p=1$WKs1xljLudd6z9kbY0wpJQ$yCR4iDZYDKv+iEJj6yHY0lv/epnfB6f/w1EbXrsJOuQ": "password",
    "$scrypt$ln=8,r=8,p=1$WKs1xljLudd6z9kbY0wpJQ$yCR4iDZYDKv.iEJj6yHY0lv/epnfB6f/w1EbXrsJOuQ": "password",
    # RFC 7914, section 12
    "$scrypt$ln=4,r=1,p=1$$d9ZXYjhleyA7GcpCwYoEl/FrSETjB0ro39/6P+3iFEL80Aad7QlI+DJqdToPyB8X6NPg+y4NNijPNeIMONGJBg": "",
    # unix-scrypt.txt of Openwall
    "$7$C6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D": "pleaseletmein",
    # the tests of yescrypt in libxcrypt
    f"$7$06..../....SodiumChloride${CRYPT_HASH}": "pleaseletmein",
    # John the Ripper
    "$7$2/..../....$rNxJWVHNv/mCNcgE/f6/L4zO6Fos5c2uTzhyzoisI62": "",
    # libsodium, whose least p is not 1
    "$7$B6....1....75gBMAGwfFWZqBdyF3WdTQnWdUsuTiWjG1fF9c1jiSD$tc8RoB3.Em3/zNgMLWo2u00oGIoTyJv4fl3Fl8Tix72": (
        "^T5H$JYt39n%K*j:W]!1s?vg!:jGi]Ax?..l7[p0v:1jHTpla9;]bUN;?bWyCbtqg nrDFal+Jxl3,2`#^tFSu%v_+7iYse8-cCkNf!tD=KrW)"
    ),
}
KNOWN = ARGON2 | BCRYPT | SCRYPT


@pytest.mark.parametrize(("stored", "password"), KNOWN.items())
def test_a_known_hash_is_of_its_password_and_of_no_other(stored: str, password: str) -> None:
    check_usable(stored)
    assert verify(stored, password)
    assert not verify(stored, f"not {password}")


@pytest.mark.parametrize("stored", KNOWN)
def test_a_hash_with_anything_around_it_is_refused(stored: str) -> None:
    for padded in (f" {stored}", f"{stored} ", f"{stored}\n", f"{stored}$", f"{stored}\0", stored[1:]):
        with pytest.raises(UnusableHash):
            check_usable(padded)
        with pytest.raises(UnusableHash):
            verify(padded, KNOWN[stored])


@pytest.mark.parametrize("kind", Type)
def test_every_kind_of_argon2_is_verified(kind: Type) -> None:
    stored = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, type=kind).hash("schlüssel\0dienst")
    assert verify(stored, "schlüssel\0dienst")
    assert not verify(stored, "schlüssel\0dienste")
    assert not verify(stored, "schlüssel")


def test_bcrypt_cuts_by_bytes_and_not_by_characters() -> None:
    stored = bcrypt.hashpw(b"\xc3\xbc" * 36, bcrypt.gensalt(4)).decode()
    assert verify(stored, "ü" * 36)
    assert verify(stored, "ü" * 37)
    assert verify(stored, "ü" * 36 + "a")
    assert not verify(stored, "ü" * 35 + "a")

    in_mid_character = bcrypt.hashpw(("a" + "ü" * 36).encode()[:72], bcrypt.gensalt(4)).decode()
    assert verify(in_mid_character, "a" + "ü" * 36)


@pytest.mark.parametrize("password", ["pleaseletmein", "schlüssel", "", "x" * 200])
@pytest.mark.parametrize("setting", ["$7$26..../....SodiumChloride$", "$7$0E..../....$", "$7$02....1....a.b/c$"])
def test_what_the_systems_own_crypt_made_is_verified(setting: str, password: str) -> None:
    stored = crypt(setting, password)
    assert verify(stored, password)
    assert not verify(stored, f"{password}!")


def crypt(setting: str, password: str) -> str:
    library = ctypes.util.find_library("crypt")
    if library is None:
        pytest.skip("there is no crypt(3)")
    function: Any = ctypes.CDLL(library).crypt
    function.restype = ctypes.c_char_p
    made: bytes | None = function(password.encode(), setting.encode())
    if made is None or not made.startswith(setting.encode()):
        pytest.skip("crypt(3) knows no scrypt")
    return made.decode()


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "$",
        "password",
        "5f4dcc3b5aa765d61d8327deb882cf99",
        "{SSHA}DkMTwBl+a/3DQTxCYEApdUtNXGgdUac3",
        "$1$saltsalt$qjXMvbEw8oaL.CzflDugX/",
        "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/",
        "$y$jD5.7$LdJMENpBABJJ3hIHjB1Bi.$HboGM6qPrsK.StKYGt6KErmUYtioHreJd98oIugoNB6",
        f"$2$05${BCRYPT_SALT_AND_HASH}",
        f"$2x$05${BCRYPT_SALT_AND_HASH}",
        f"$argon2$v=19$m=256,t=2,p=1${SALT}${TAG}",
        f"$argon2id$v=19$m=256,t=2,p=1${SALT}${TAG[:-1]}é",
        f"$argon2id$v=19$m=256,t=2,p=1${SALT}${TAG[:-1]}\ud800",
        f"$scrypt$ln=4,r=1,p=1${SALT}${'A' * 512}",
    ],
)
def test_another_format_is_refused_with_a_list_of_those_that_are_taken(stored: str) -> None:
    with pytest.raises(UnusableHash, match=r"\$argon2id\$.*\$2b\$.*\$scrypt\$.*at most 512 ASCII characters"):
        check_usable(stored)


def argon2(*, m: object = 256, t: object = 2, p: object = 1, v: object = 19, salt: str = SALT, tag: str = TAG) -> str:
    return f"$argon2id$v={v}$m={m},t={t},p={p}${salt}${tag}"


@pytest.mark.parametrize(
    "stored",
    [
        argon2(m=256 * 1024 + 1),
        argon2(m=10**12),
        argon2(m=7),
        argon2(m=0),
        argon2(m=-8),
        argon2(m="0256"),
        argon2(m="2_56"),
        argon2(m="٢٥٦"),
        argon2(m=127, p=16),
        argon2(t=17),
        argon2(t=0),
        argon2(p=17),
        argon2(p=0),
        argon2(v=17),
        argon2(salt="c29tZXM"),
        argon2(salt=""),
        argon2(salt="c29tZXNhbHR"),
        argon2(salt="c29tZXNhbHQ="),
        argon2(tag="AAAAAAAAAAAAAAA"),
        argon2(tag=""),
        argon2(tag=TAG[:-1] + "5"),
        argon2(tag=TAG.replace("/", ".")),
        f"$argon2id$v=19$t=2,m=256,p=1${SALT}${TAG}",
        f"$argon2id$v=19$m=256,t=2,p=1${SALT}",
    ],
)
def test_an_argon2_hash_that_is_broken_or_asks_too_much_is_refused(stored: str) -> None:
    with pytest.raises(UnusableHash, match="argon2"):
        check_usable(stored)


@pytest.mark.parametrize(
    "stored",
    [
        f"$2b$16${BCRYPT_SALT_AND_HASH}",
        f"$2b$31${BCRYPT_SALT_AND_HASH}",
        f"$2b$03${BCRYPT_SALT_AND_HASH}",
        f"$2b$5${BCRYPT_SALT_AND_HASH}",
        f"$2b$+5${BCRYPT_SALT_AND_HASH}",
        "$2b$05$CCCCCCCCCCCCCCCCCCCCCAE5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeX",
        "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyO+W",
    ],
)
def test_a_bcrypt_hash_that_is_broken_or_asks_too_much_is_refused(stored: str) -> None:
    with pytest.raises(UnusableHash, match="a cost from 04 to 15"):
        check_usable(stored)


@pytest.mark.parametrize(
    "stored",
    [
        f"$scrypt$ln=19,r=8,p=1${SALT}${TAG}",
        f"$scrypt$ln=18,r=8,p=2${SALT}${TAG}",
        f"$scrypt$ln=99,r=8,p=1${SALT}${TAG}",
        f"$scrypt$ln=4,r=1,p=17${SALT}${TAG}",
        f"$scrypt$ln=1,r=65,p=1${SALT}${TAG}",
        f"$scrypt$ln=16,r=1,p=1${SALT}${TAG}",
        f"$scrypt$ln=0,r=8,p=1${SALT}${TAG}",
        f"$scrypt$ln=4,r=0,p=1${SALT}${TAG}",
        f"$scrypt$ln=4,r=8,p=0${SALT}${TAG}",
        f"$scrypt$ln=4,r=8,p=1${SALT}$AAAAAAAAAAAAAAA",
        f"$scrypt$ln=4,r=8,p=1${SALT}$",
        f"$scrypt$ln=4,r=8,p=1$c29tZ${TAG}",
        f"$scrypt$r=8,ln=4,p=1${SALT}${TAG}",
        f"$7$H6..../....SodiumChloride${CRYPT_HASH}",
        f"$7$G6....0....SodiumChloride${CRYPT_HASH}",
        f"$7$.6..../....SodiumChloride${CRYPT_HASH}",
        f"$7$06....F....SodiumChloride${CRYPT_HASH}",
        f"$7$06...../...SodiumChloride${CRYPT_HASH}",
        f"$7$06...zz....SodiumChloride${CRYPT_HASH}",
        f"$7$0...../....SodiumChloride${CRYPT_HASH}",
        f"$7$06..../....Sodium\nChloride${CRYPT_HASH}",
        f"$7$06..../....SodiumChloride${CRYPT_HASH[:-1]}E",
    ],
)
def test_a_scrypt_hash_that_is_broken_or_asks_too_much_is_refused(stored: str) -> None:
    with pytest.raises(UnusableHash, match="a scrypt hash must be"):
        check_usable(stored)


@pytest.mark.parametrize(
    "stored",
    [
        argon2(m=256 * 1024, t=16, p=16),
        argon2(m=128, p=16),
        f"$2b$15${BCRYPT_SALT_AND_HASH}",
        f"$2b$04${BCRYPT_SALT_AND_HASH}",
        f"$scrypt$ln=18,r=8,p=1${SALT}${TAG}",
        f"$scrypt$ln=14,r=8,p=16${SALT}${TAG}",
        f"$scrypt$ln=15,r=1,p=1${SALT}${TAG}",
        f"$scrypt$ln=15,r=64,p=1${SALT}${TAG}",
        f"$7$G6..../....SodiumChloride${CRYPT_HASH}",
    ],
)
def test_what_asks_for_no_more_than_is_allowed_is_taken(stored: str) -> None:
    check_usable(stored)


@pytest.mark.parametrize("stored", [*ARGON2, *BCRYPT])
def test_a_password_that_cannot_be_encoded_is_wrong(stored: str) -> None:
    assert not verify(stored, "lone \ud800 surrogate")


def base64_of(*, least: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=least, max_size=70).map(lambda raw: b64encode(raw).rstrip(b"=").decode())


@st.composite
def argon2_hashes(draw: st.DrawFn) -> str:
    kind, version = draw(st.sampled_from(["id", "i", "d"])), draw(st.sampled_from(["v=19$", "v=16$", ""]))
    p, t = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    m = draw(st.integers(8 * p, 8 * p + 100))
    return f"$argon2{kind}${version}m={m},t={t},p={p}${draw(base64_of(least=8))}${draw(base64_of(least=12))}"


@st.composite
def scrypt_hashes(draw: st.DrawFn) -> str:
    log_n, r, p = draw(st.integers(1, 5)), draw(st.integers(1, 64)), draw(st.integers(1, 16))
    return f"$scrypt$ln={log_n},r={r},p={p}${draw(base64_of(least=0))}${draw(base64_of(least=12))}"


bcrypt_hashes = st.from_regex(r"\A\$2[aby]\$04\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]\Z")
crypt_hashes = st.from_regex(r"\A\$7\$[/0-3][0-9A-D]\.{4}[/0-9A-D]\.{4}[!-#%-~]{0,20}\$[./0-9A-Za-z]{42}[./0-9A-D]\Z")


@settings(deadline=None, max_examples=200)
@given(stored=argon2_hashes() | scrypt_hashes() | bcrypt_hashes | crypt_hashes, password=st.text(max_size=100))
def test_what_was_found_usable_can_always_be_verified(stored: str, password: str) -> None:
    check_usable(stored)
    assert not verify(stored, password)


@settings(deadline=None)
@given(
    stored=st.text(max_size=600)
    | st.sampled_from(sorted(KNOWN)).flatmap(lambda known: st.permutations(known[:40])).map("".join)
)
def test_any_other_text_is_refused_in_one_way(stored: str) -> None:
    with pytest.raises(UnusableHash):
        check_usable(stored)
