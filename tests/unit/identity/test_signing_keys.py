import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from events.keyring import Kek, WrongKey
from identity.signing_keys import LONGEST_TOKEN, jwk_of, kid_of, new_key, open_key, verifying_key
from runtime.settings import Settings

KEK = Kek(b"k" * 32)
# RFC 8037, appendix A
PRIVATE = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
PUBLIC = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_a_kid_is_the_thumbprint_of_rfc_7638() -> None:
    assert kid_of(decoded(PUBLIC)) == THUMBPRINT


def test_a_key_is_published_as_rfc_8037_has_it() -> None:
    assert jwk_of(THUMBPRINT, decoded(PUBLIC)) == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": PUBLIC,
        "kid": THUMBPRINT,
        "use": "sig",
        "alg": "EdDSA",
    }


def test_the_example_signature_of_rfc_8037_verifies() -> None:
    private = Ed25519PrivateKey.from_private_bytes(decoded(PRIVATE))
    signed = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    assert private.sign(signed) == decoded(signature)
    verifying_key(decoded(PUBLIC)).verify(decoded(signature), signed)


def test_a_new_key_opens_under_its_kek_alone() -> None:
    key = new_key(KEK)
    private = open_key(key.wrapped, KEK)
    assert private.public_key().public_bytes_raw() == key.public_key
    assert (key.kid, key.kek_id) == (kid_of(key.public_key), KEK.id)
    with pytest.raises(WrongKey, match=Kek(b"K" * 32).id):
        open_key(key.wrapped, Kek(b"K" * 32))


@pytest.mark.parametrize("length", [0, 8, 16, 39])
def test_a_key_that_was_cut_off_does_not_open(length: int) -> None:
    with pytest.raises(WrongKey):
        open_key(new_key(KEK).wrapped[:length], KEK)


def test_every_new_key_is_another() -> None:
    assert len({new_key(KEK).kid for _ in range(100)}) == 100


def test_what_is_wrapped_shows_nothing_of_the_key() -> None:
    key = new_key(KEK)
    seed = open_key(key.wrapped, KEK).private_bytes_raw()
    assert seed not in key.wrapped
    assert hashlib.sha256(seed).digest() not in key.wrapped


def test_a_retired_key_verifies_for_longer_than_any_token_lives() -> None:
    fields = Settings.model_fields["access_token_ttl"]
    longest = next(limit.le for limit in fields.metadata if hasattr(limit, "le"))
    assert longest < LONGEST_TOKEN
