"""Tokens with a wrong header, or signed by whom nobody trusts, each under the name of what is wrong with it."""

import base64
import json
import zlib
from collections.abc import Iterator
from itertools import product
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.forging import (
    HEADER,
    Named,
    b64,
    ec_signed,
    ed448_signed,
    header,
    hmac_signed,
    jwk,
    rsa_signed,
    signed,
    thumbprint,
    unsigned,
)
from tests.tokens import ADMIN_ID, KID, SIGNING_KEY, claims_of

ATTACKER: Final = Ed25519PrivateKey.from_private_bytes(b"a key that an attacker has made!")
PUBLIC: Final = SIGNING_KEY.public_key()


def without_signature() -> Iterator[Named]:
    for letters in product("nN", "oO", "nN", "eE"):
        none = "".join(letters)
        yield f"alg {none}", f"{unsigned(header(alg=none))}."
        yield f"alg {none} without kid", f"{unsigned(header(alg=none, kid=None))}."
    for alg in (" none", "none ", "none\x00", "", "null", 0, False, [], ["none"], ["EdDSA"], {"EdDSA": "none"}):
        yield f"alg {alg!r}", f"{unsigned(header(alg=alg))}."
    for name, none in (("null", None), ("none", "none")):
        yield f"alg {name} signed by our key", signed({**HEADER, "alg": none})
    yield "alg absent", f"{unsigned(header(alg=None))}."
    yield "alg absent, signed by our key", signed(header(alg=None))
    yield "alg none with a JWT's header", f"{unsigned({'alg': 'none', 'typ': 'JWT'})}."
    yield "our header without a signature", f"{unsigned()}."
    yield "our header without a third part", unsigned()


def by_secrets_that_are_public() -> Iterator[Named]:
    raw = PUBLIC.public_bytes_raw()
    pem = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secrets = {
        "raw": raw,
        "PEM": pem,
        "PEM without its last newline": pem.strip(),
        "DER": PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "JWK": json.dumps(jwk(SIGNING_KEY)).encode(),
        "base64url": b64(raw).encode(),
        "base64": base64.b64encode(raw),
        "hex": raw.hex().encode(),
        "kid": KID.encode(),
        "nothing": b"",
    }
    for bits, (name, secret) in product(("256", "384", "512"), secrets.items()):
        yield f"HS{bits} with the public key as {name}", hmac_signed(bits, secret)
    yield "HS256 without kid", hmac_signed("256", raw, kid=None)
    text = unsigned()
    yield "EdDSA by name, HMAC by nature", f"{text}.{b64(hmac_signed('256', raw).encode()[:64])}"


def by_other_keys() -> Iterator[Named]:
    rsa_key = rsa.generate_private_key(65537, 2048)
    for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"):
        yield f"{alg} under our kid", rsa_signed(rsa_key, alg)
    yield "RS256 under a kid of its own", rsa_signed(rsa_key, "RS256", kid="rsa")
    yield "RS256 without kid", rsa_signed(rsa_key, "RS256", kid=None)
    for alg, curve in (("ES256", ec.SECP256R1()), ("ES384", ec.SECP384R1()), ("ES512", ec.SECP521R1())):
        yield f"{alg} under our kid", ec_signed(ec.generate_private_key(curve), alg)
        yield f"{alg} under a kid of its own", ec_signed(ec.generate_private_key(curve), alg, kid="ec")
    yield "ES256K under our kid", ec_signed(ec.generate_private_key(ec.SECP256K1()), "ES256K")
    yield "Ed448 under our kid", ed448_signed(Ed448PrivateKey.generate())
    yield "Ed448 by its own name", ed448_signed(Ed448PrivateKey.generate(), alg="Ed448")
    yield "another Ed25519 key under our kid", signed(key=ATTACKER)
    yield "another Ed25519 key under its own kid", signed(header(kid=thumbprint(ATTACKER)), key=ATTACKER)
    yield "another Ed25519 key without kid", signed(header(kid=None), key=ATTACKER)


def by_other_names_of_the_algorithm() -> Iterator[Named]:
    for alg in ("Ed25519", "Ed448", "eddsa", "EDDSA", "EdDSA ", "EdDSA\x00", "Ed25519ph", "HS256", "ES256", "RS256"):
        yield f"our own signature as {alg!r}", signed(header(alg=alg))


def with_more_in_the_header() -> Iterator[Named]:
    key = jwk(ATTACKER)
    url = "https://attacker.example/jwks.json"
    more: dict[str, object] = {
        "jku": url,
        "jku of ours": "http://muster/.well-known/jwks.json",
        "jwk": key,
        "jwk with a private part": {**key, "d": b64(b"d" * 32)},
        "x5u": url,
        "x5c": [base64.b64encode(b"a certificate").decode()],
        "x5t": b64(b"t" * 20),
        "x5t#S256": b64(b"t" * 32),
        "crit": ["exp"],
        "crit of nothing": [],
        "crit as text": "exp",
        "b64": True,
        "b64 false": False,
        "zip": "DEF",
        "zip none": None,
        "cty": "JWT",
        "enc": "A128GCM",
        "epk": key,
        "p2c": 10**9,
        "nonce": "n-0S6_WzA2Mj",
        "url": url,
        "iss": "urn:muster",
        "sub": str(ADMIN_ID),
        "KID": KID,
        "": "",
    }
    for name, member in more.items():
        head = {**HEADER, name.partition(" ")[0]: member}
        yield f"{name} in the header, by an attacker's key", signed(head, key=ATTACKER)
        yield f"{name} in the header, by our key", signed(head)
    yield "crit with b64", signed({**HEADER, "crit": ["b64"], "b64": True})
    detached = signed({**HEADER, "crit": ["b64"], "b64": False})
    yield "a detached payload", ".".join((detached.split(".")[0], "", detached.split(".")[2]))
    yield (
        "a compressed payload",
        signed({**HEADER, "zip": "DEF"}, zlib.compress(json.dumps(claims_of()).encode())[2:-4]),
    )


def with_another_kid() -> Iterator[Named]:
    kids: dict[str, object] = {
        "path traversal": "../../../../../../dev/null",
        "absolute path": "/proc/sys/kernel/randomize_va_space",
        "encoded path": "..%2f..%2fetc%2fpasswd",
        "SQL": "' UNION SELECT 'a' --",
        "SQL that is always true": "' OR '1'='1",
        "a shell's": "$(sleep 9)",
        "NUL": f"{KID}\x00",
        "newline": f"{KID}\n",
        "space": f" {KID}",
        "case": KID.swapcase(),
        "URL": "https://attacker.example/key",
        "LDAP": "*)(uid=*))(|(uid=*",
        "template": "{{7*7}}${7*7}",
        "huge": "k" * 1000,
        "emoji": "🔑",
        "surrogate": "\ud800",
        "dunder": "__class__",
        "empty": "",
        "null": None,
        "array": [KID],
        "object": {"kid": KID},
        "number": 0,
        "true": True,
    }
    for name, kid in kids.items():
        yield f"kid: {name}, by an attacker's key", signed({**HEADER, "kid": kid}, key=ATTACKER)
        yield f"kid: {name}, by our key", signed({**HEADER, "kid": kid})
    yield "kid absent, by our key", signed(header(kid=None))


def of_another_type() -> Iterator[Named]:
    types: tuple[object, ...] = (
        *("JWT", "jwt", "AT+JWT", "at+JWT", "At+Jwt", "application/at+jwt", "application/jwt", "at+jwt ", " at+jwt"),
        *("at+jwt;charset=utf-8", "at jwt", "at+jwt\x00", "id_token", "refresh", "rt+jwt", "logout+jwt", "dpop+jwt"),
        *("secevent+jwt", "JOSE", "", None, 0, ["at+jwt"], {"at+jwt": True}),
    )
    for typ in types:
        yield f"typ {typ!r}", signed({**HEADER, "typ": typ})
    yield "typ absent", signed(header(typ=None))
