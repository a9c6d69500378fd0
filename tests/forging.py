"""Making tokens by hand, right and wrong, without the library that verifies them."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.tokens import KID, SIGNING_KEY, claims_of

Part = Mapping[str, Any] | bytes
# what is wrong with a token, and the token
Named = tuple[str, str | bytes]

HEADER: Final = {"alg": "EdDSA", "typ": "at+jwt", "kid": KID}
# the order of the group of Ed25519 (RFC 8032, section 5.1)
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
HASHES: Final = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def header(**members: object) -> dict[str, object]:
    """Our header with other members; what is None is left out."""
    return {name: value for name, value in {**HEADER, **members}.items() if value is not None}


def unsigned(head: Part | None = None, body: Part | None = None) -> str:
    """The two parts that a signature covers, as JSON unless they are bytes already."""
    parts = (HEADER if head is None else head, claims_of() if body is None else body)
    return ".".join(b64(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in parts)


def signed(head: Part | None = None, body: Part | None = None, *, key: Ed25519PrivateKey = SIGNING_KEY) -> str:
    """A token with whatever header and claims, truly signed; by our own key unless told otherwise."""
    text = unsigned(head, body)
    return f"{text}.{b64(key.sign(text.encode()))}"


def signature_of(token: str) -> bytes:
    return base64.urlsafe_b64decode(token.rpartition(".")[2] + "==")


def with_signature(token: str, signature: bytes) -> str:
    return f"{token.rpartition('.')[0]}.{b64(signature)}"


def hmac_signed(bits: str, secret: bytes, **members: object) -> str:
    text = unsigned(header(alg=f"HS{bits}", **members))
    return f"{text}.{b64(hmac.digest(secret, text.encode(), f'sha{bits}'))}"


def rsa_signed(key: rsa.RSAPrivateKey, alg: str, **members: object) -> str:
    text, algorithm = unsigned(header(alg=alg, **members)), HASHES[alg[2:]]
    pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
    signature = key.sign(text.encode(), pss if alg.startswith("PS") else padding.PKCS1v15(), algorithm)
    return f"{text}.{b64(signature)}"


def ec_signed(key: ec.EllipticCurvePrivateKey, alg: str, **members: object) -> str:
    text, size = unsigned(header(alg=alg, **members)), (key.curve.key_size + 7) // 8
    der = key.sign(text.encode(), ec.ECDSA(HASHES[alg[2:5]]))
    return f"{text}.{b64(b''.join(number.to_bytes(size, 'big') for number in decode_dss_signature(der)))}"


def ed448_signed(key: Ed448PrivateKey, **members: object) -> str:
    text = unsigned(header(**members))
    return f"{text}.{b64(key.sign(text.encode()))}"


def malleated(token: str) -> str:
    """The same signature with S + L for S: the equation holds, but RFC 8032 (section 5.1.7) wants S below L."""
    signature = signature_of(token)
    above = int.from_bytes(signature[32:], "little") + ORDER
    return with_signature(token, signature[:32] + above.to_bytes(32, "little"))


def respelled(token: str) -> list[str]:
    """All other ways to write the same signature: its last character has four bits that say nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1])
    return [token[:-1] + alphabet[last + spare] for spare in range(1, 16)]


def thumbprint(key: Ed25519PrivateKey) -> str:
    """RFC 7638."""
    return b64(hashlib.sha256(json.dumps(jwk(key), sort_keys=True, separators=(",", ":")).encode()).digest())


def jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": b64(key.public_key().public_bytes_raw())}
