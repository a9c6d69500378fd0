"""Good tokens with a forged signature, or written in another way, each under the name of what was done to it."""

import base64
import json
from collections.abc import Iterator
from typing import Final

from identity.access_tokens import MAX_LENGTH
from tests.forging import HEADER, Named, b64, malleated, respelled, signature_of, signed, unsigned, with_signature
from tests.tokens import SIGNING_KEY, claims_of, token_of

PUBLIC: Final = SIGNING_KEY.public_key()
# points of Ed25519 whose order divides 8, with the encodings that are not canonical
SMALL_ORDER: Final = (
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
)


def with_a_forged_signature() -> Iterator[Named]:
    good, other = token_of(), token_of()
    signature = signature_of(good)
    first, second = signature[:32], signature[32:]
    forged: dict[str, bytes] = {
        "zeros": bytes(64),
        "ones": b"\xff" * 64,
        "S zero": first + bytes(32),
        "halves swapped": second + first,
        "bytes reversed": signature[::-1],
        "one bit": bytes([signature[0] ^ 1]) + signature[1:],
        "the last bit": signature[:-1] + bytes([signature[-1] ^ 128]),
        "63 bytes": signature[:-1],
        "65 bytes": signature + b"\x00",
        "32 bytes": first,
        "twice": signature * 2,
        "one byte": b"\x00",
        "another token's": signature_of(other),
        "of the claims alone": SIGNING_KEY.sign(good.split(".")[1].encode()),
        "of nothing": SIGNING_KEY.sign(b""),
        "of what the parts mean": SIGNING_KEY.sign(json.dumps(HEADER).encode() + json.dumps(claims_of()).encode()),
        "the public key": PUBLIC.public_bytes_raw() * 2,
    }
    for name, one in forged.items():
        yield f"signature: {name}", with_signature(good, one)
    for point in SMALL_ORDER:
        yield (
            f"signature: R of small order, {point[:4]}..{point[-2:]}",
            with_signature(good, bytes.fromhex(point) + second),
        )
    yield "signature: S + L", malleated(good)
    for number, respelt in enumerate(respelled(good), 1):
        yield f"signature: written otherwise, {number}", respelt
    others = other.split(".")
    head, _, mine = good.split(".")
    yield "claims of another token", ".".join((head, others[1], mine))
    yield "more rights in the claims", ".".join((head, unsigned(body=claims_of(scope="ops")).split(".")[1], mine))


def misspelled() -> Iterator[Named]:
    good = token_of()
    head, body, mine = good.split(".")
    yield from _joined([head], [head, body], [head, body, ""], [body, mine], ["", body, mine], ["", "", ""])
    yield from _joined([head, "", mine], [body, head, mine], [head, mine, body], [head, body, mine, ""])
    yield from _joined([head, body, mine, mine], ["", head, body, mine], [head, "", body, mine])
    yield "five parts, as a JWE", ".".join((b64(b'{"alg":"dir","enc":"A128GCM"}'), "", b64(b"i" * 12), body, mine))
    yield "five parts with ours first", f"{good}.{mine}.{mine}"
    for cut in (1, 2, 43, 85):
        yield f"a signature cut by {cut}", good[:-cut]
    yield "a header cut by one", good[1:]
    yield "claims cut by one", ".".join((head, body[:-1], mine))
    for name, more in (("=", "="), ("==", "=="), ("====", "===="), ("%3D", "%3D"), ("a", "a"), ("NUL", "\x00")):
        yield f"{name} at its end", good + more
    for name, white in (("newline", "\n"), ("CR LF", "\r\n"), ("form feed", "\f"), ("separator", "\x1f")):
        yield f"{name} at its end", good + white
    yield "no-break space at its end", good.encode() + b"\xa0"
    yield "next line at its end", good.encode() + b"\x85"
    yield "newline before it", f"\n{good}"
    for name, junk in (("newline", "\n"), ("space", " "), ("!", "!"), ("=", "="), ("+", "+"), ("NUL", "\x00")):
        yield f"{name} in its signature", f"{good[:-40]}{junk}{good[-40:]}"
        yield f"{name} in its claims", f"{head}.{body[:9]}{junk}{body[9:]}.{mine}"
    padded = f"{head}.{body}=="
    yield "claims with padding, signed so", f"{padded}.{b64(SIGNING_KEY.sign(padded.encode()))}"
    plain = f"{json.dumps(HEADER)}.{json.dumps(claims_of())}"
    yield "no base64, signed so", f"{plain}.{b64(SIGNING_KEY.sign(plain.encode()))}"
    yield "standard base64", f"{head}.{body}.{base64.b64encode(b'>>>???' + signature_of(good)[6:]).decode()}"
    yield "JWS in JSON", json.dumps({"protected": head, "payload": body, "signature": mine})
    yield "JWS in general JSON", json.dumps({"payload": body, "signatures": [{"protected": head, "signature": mine}]})
    yield "in quotes", f"'{good}'"
    yield "twice", f"{good}{good}"
    yield "twice with a comma", f"{good}, {good}"
    yield "after its scheme again", f"Bearer {good}"
    yield "percent-encoded", good.replace(".", "%2E")
    yield "upper case", good.upper()
    yield "backwards", good[::-1]
    for dot in "．。｡․·":  # noqa: RUF001 - these look like the dot, and are not
        yield f"U+{ord(dot):04X} for the dots", good.replace(".", dot)
    yield "full-width letters", "".join(chr(ord(letter) + 0xFEE0) for letter in good)
    yield "a letter of Cyrillic", good.replace("e", "е", 1)  # noqa: RUF001 - likewise
    yield "emoji", "🔑.🔑.🔑"
    yield "bytes that are no text", bytes(range(128, 256))
    padding = MAX_LENGTH + 1 - len(signed(body=claims_of(pad="")))
    longer = (signed(body=claims_of(pad="p" * (padding * 3 // 4 + extra))) for extra in range(4))
    yield "one byte too long", next(token for token in longer if len(token) > MAX_LENGTH)
    yield "60 KB, truly signed", signed(body=claims_of(pad="p" * 45_000))
    yield "60 KB of dots", "." * 60_000
    yield "60 KB of letters", "a" * 60_000


def _joined(*lists: list[str]) -> Iterator[Named]:
    for parts in lists:
        told = " ".join(part[:5] + part[-2:] or "nothing" for part in parts)
        yield f"parts: {told}", ".".join(parts)
