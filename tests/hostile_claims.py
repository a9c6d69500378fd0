"""Tokens truly signed by the trusted key that say something wrong, each under the name of what it is."""

import json
import time
from collections.abc import Iterator
from itertools import product
from typing import Any

from runtime.ids import new_id
from tests.forging import HEADER, Named, signed
from tests.tokens import ADMIN_ID, KID, claims_of, token_of


def with_wrong_claims() -> Iterator[Named]:
    now = int(time.time())
    uuid = str(new_id())
    for claim, ours in (("iss", "urn:muster"), ("aud", "urn:muster:users")):
        wrong: tuple[object, ...] = (
            *("urn:other", f"{ours}:staging", ours[:-1], f" {ours}", f"{ours} ", ours.upper(), f"{ours}\x00", "", "*"),
            *([ours], ["urn:other", ours], {ours: True}, [], 7, True, None),
        )
        for value in wrong:
            yield f"{claim} {value!r}", signed(body=claims_of() | {claim: value})
    # a good moment for both
    moment = now + 3
    numbers: dict[str, object] = {
        "text": str(moment),
        "a word": "tomorrow",
        "true": True,
        "null": None,
        "a fraction": moment + 0.5,
        "NaN": float("nan"),
        "Infinity": float("inf"),
        "-Infinity": float("-inf"),
        "a list": [moment],
        "an object": {"at": moment},
    }
    for claim, (name, value) in product(("exp", "iat"), numbers.items()):
        yield f"{claim} is {name}", signed(body=claims_of() | {claim: value})
    texts: dict[str, tuple[object, ...]] = {
        "sub": ("", "admin", 7, uuid.upper(), f"{{{uuid}}}", f"urn:uuid:{uuid}", uuid.replace("-", ""), [uuid], None),
        "sid": ("", "session", 7, 0.5, uuid.upper(), f"{{{uuid}}}", uuid.replace("-", ""), [uuid], {"id": uuid}, None),
        "rev": (-1, 0.0, 0.5, "0", "", False, True, [0], None, float("nan"), float("inf")),
        "scope": (["users:read"], 7, {"users:read": True}, True, None),
        "client_id": (7, ["muster"], {"id": "muster"}, None),
        "jti": (7, ["jti"], None),
    }
    for claim, values in texts.items():
        for value in values:
            yield f"{claim} {value!r}", signed(body=claims_of() | {claim: value})
    for claim in claims_of():
        yield f"{claim} absent", signed(body={name: value for name, value in claims_of().items() if name != claim})
    yield "no claims", signed(body={})
    yield "a token of another environment", token_of(iss="urn:muster:test", aud="urn:muster:test:users")


def at_another_time() -> Iterator[Named]:
    now = int(time.time())
    times: dict[str, dict[str, Any]] = {
        "expired by a second": {"iat": now - 601, "exp": now - 1},
        "expired within the skew of clocks": {"iat": now - 603, "exp": now - 3},
        "expired long ago": {"iat": now - 90_000, "exp": now - 86_400},
        "expired in 1970": {"iat": 0, "exp": 1},
        "exp zero": {"exp": 0},
        "exp negative": {"exp": -1},
        "exp very negative": {"exp": -(10**40)},
        "exp in a thousand years": {"exp": now + 1000 * 31_557_600},
        "exp huge": {"exp": 10**18},
        "exp beyond a double": {"exp": 10**400},
        "exp before iat": {"iat": now + 3, "exp": now - 3},
        "iat to come": {"iat": now + 500},
        "iat far to come": {"iat": now + 86_400, "exp": now + 87_000},
        "iat huge": {"iat": 10**400},
        "iat negative": {"iat": -1},
        "a longer life than ours, past ours": {"iat": now - 601, "exp": now + 3000},
        "nbf to come": {"nbf": now + 500},
        "nbf a word": {"nbf": "tomorrow"},
        "nbf NaN": {"nbf": float("nan")},
        "nbf huge": {"nbf": 10**400},
    }
    for name, claims in times.items():
        yield name, signed(body=claims_of() | claims)


def with_odd_json() -> Iterator[Named]:
    claims = claims_of()
    text = json.dumps(claims)
    twice = f'{text[:-1]}, "sub": "{ADMIN_ID}"}}'
    bodies: dict[str, bytes] = {
        "a claim twice": twice.encode(),
        "a claim twice, the second time otherwise": f'{text[:-1]}, "sub": "{new_id()}"}}'.encode(),
        "a claim twice, deep inside": f'{text[:-1]}, "x": [{{"a": 1, "a": 2}}]}}'.encode(),
        "UTF-16, little endian": text.encode("utf-16-le"),
        "UTF-16, big endian": text.encode("utf-16-be"),
        "UTF-16 with a mark": text.encode("utf-16"),
        "UTF-32": text.encode("utf-32-le"),
        "a byte order mark": text.encode("utf-8-sig"),
        "no UTF-8": text.encode().replace(b"muster", b"m\xfcster"),
        "overlong UTF-8": text.encode().replace(b"self", b"s\xc1\xa5lf"),
        "an array": json.dumps([claims]).encode(),
        "a string": json.dumps(text).encode(),
        "a number": b"7",
        "null": b"null",
        "no JSON": b"sub=admin&scope=users:write",
        "XML": b"<claims/>",
        "single quotes": text.replace('"', "'").encode(),
        "a comment": f"{text[:-1]} /* admin */}}".encode(),
        "more after its end": f"{text}{text[:20]}".encode(),
        "nothing before its end": text[:-1].encode(),
        "deep arrays": b"[" * 1200,
        "deep objects": b'{"a":' * 240,
        "deep scope": json.dumps(claims | {"scope": "DEEP"}).replace('"DEEP"', "[" * 200 + "]" * 200).encode(),
        "a lone surrogate": text.replace(str(claims["sub"]), r"\ud800").encode(),
        "white space alone": b"   ",
    }
    for name, body in bodies.items():
        yield f"claims: {name}", signed(body=body)
    heads: dict[str, bytes] = {
        "alg twice, none first": f'{{"alg":"none","alg":"EdDSA","typ":"at+jwt","kid":"{KID}"}}'.encode(),
        "alg twice, none last": f'{{"alg":"EdDSA","alg":"none","typ":"at+jwt","kid":"{KID}"}}'.encode(),
        "kid twice": f'{{"alg":"EdDSA","typ":"at+jwt","kid":"x","kid":"{KID}"}}'.encode(),
        "UTF-16": json.dumps(HEADER).encode("utf-16-le"),
        "a byte order mark": json.dumps(HEADER).encode("utf-8-sig"),
        "an array": json.dumps([HEADER]).encode(),
        "an empty object": b"{}",
        "null": b"null",
        "no JSON": b"\xff\xfe\xfd",
        "deep arrays": b"[" * 1200,
        "cut": json.dumps(HEADER).encode()[:-1],
    }
    for name, head in heads.items():
        yield f"header: {name}", signed(head)
