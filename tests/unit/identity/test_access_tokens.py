import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from identity.access_tokens import MAX_LENGTH, AccessTokens, Grant, InvalidToken
from identity.roles import ROLES, Scope
from identity.trust import SigningKey
from runtime.ids import new_id
from runtime.settings import Settings, settings_from_environment
from tests.forging import HEADER, signed
from tests.tokens import KID, SIGNING_KEY, claims_of, token_of

KEY = SigningKey(kid=KID, private=SIGNING_KEY)
KEYS = {KID: SIGNING_KEY.public_key()}
USER = Grant(subject=new_id(), client=None, scopes=ROLES["operator"], session=new_id(), reflects=7)
SERVICE_ID = new_id()
SERVICE = Grant(
    subject=SERVICE_ID, client=SERVICE_ID, scopes=frozenset({Scope.USERS_READ}), session=new_id(), reflects=0
)


@pytest.fixture
def told(key_files: dict[str, Path]) -> dict[str, Any]:
    return {"muster_mode": "test", "database_url": "postgresql://127.0.0.1:1/nowhere", **key_files}


@pytest.fixture
def tokens(told: dict[str, Any]) -> AccessTokens:
    return AccessTokens(settings_from_environment(**told))


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    head, body, _ = token.split(".")
    head, body = (json.loads(base64.urlsafe_b64decode(f"{part}==")) for part in (head, body))
    return head, body


def test_a_token_is_one_of_rfc_9068(tokens: AccessTokens) -> None:
    before = int(time.time())
    head, claims = parts_of(tokens.issue(USER, KEY))
    assert head == {"typ": "at+jwt", "alg": "EdDSA", "kid": KID}
    issued = claims.pop("iat")
    assert before <= issued <= time.time()
    assert claims.pop("exp") == issued + 600
    assert len(claims.pop("jti")) == 36
    assert claims == {
        "iss": "urn:muster",
        "aud": "urn:muster:users",
        "sub": str(USER.subject),
        "client_id": "muster",
        "sid": str(USER.session),
        "scope": "ops self users:read",
        "rev": 7,
    }


def test_a_services_token_names_the_service_twice(tokens: AccessTokens) -> None:
    """RFC 9068, section 2.2: a client that acts for itself is the subject."""
    token = tokens.issue(SERVICE, KEY)
    _, claims = parts_of(token)
    assert claims["sub"] == claims["client_id"] == str(SERVICE_ID)
    assert tokens.verify(token, KEYS).kind == "service"


def test_no_two_tokens_are_alike(tokens: AccessTokens) -> None:
    assert len({tokens.issue(USER, KEY) for _ in range(100)}) == 100


def test_the_caller_is_whom_the_token_was_issued_to(tokens: AccessTokens) -> None:
    caller = tokens.verify(tokens.issue(USER, KEY), KEYS)
    assert (caller.subject, caller.session) == (str(USER.subject), str(USER.session))
    assert (caller.kind, caller.scopes, caller.reflects, caller.kid) == ("user", USER.scopes, 7, KID)
    assert (caller.actor.subject, caller.actor.kind) == (caller.subject, "user")
    assert 590 < caller.expires_at - time.time() <= 600


def test_a_token_without_scopes_is_good_and_opens_nothing(tokens: AccessTokens) -> None:
    nobody = Grant(subject=new_id(), client=None, scopes=frozenset(), session=new_id(), reflects=0)
    assert tokens.verify(tokens.issue(nobody, KEY), KEYS).scopes == frozenset()


def test_a_scope_that_is_not_known_here_opens_nothing(tokens: AccessTokens) -> None:
    token = token_of(scope="self users:* admin OPS  users:read\tops")
    assert tokens.verify(token, KEYS).scopes == {Scope.SELF}


def test_the_longest_names_fit_into_a_token(told: dict[str, Any]) -> None:
    names = {"token_issuer": "i" * 200, "token_audience": "a" * 200}
    tokens = AccessTokens(settings_from_environment(**told, **names))
    everything = Grant(
        subject=SERVICE_ID, client=SERVICE_ID, scopes=frozenset(Scope), session=new_id(), reflects=2**63 - 1
    )
    tokens.verify(tokens.issue(everything, KEY), KEYS)


def test_only_the_keys_that_are_given_are_trusted(tokens: AccessTokens) -> None:
    other = Ed25519PrivateKey.generate()
    token = tokens.issue(USER, SigningKey(kid="next", private=other))
    assert tokens.verify(token, {**KEYS, "next": other.public_key()}).kid == "next"
    for keys in ({}, KEYS, {"next": SIGNING_KEY.public_key()}, {KID: other.public_key()}):
        with pytest.raises(InvalidToken):
            tokens.verify(token, keys)


@pytest.mark.parametrize("other", [{"token_issuer": "urn:other"}, {"token_audience": "urn:other"}])
def test_what_another_deployment_issues_is_not_ours(
    tokens: AccessTokens, told: dict[str, Any], other: dict[str, str]
) -> None:
    others = AccessTokens(settings_from_environment(**told, **other))
    with pytest.raises(InvalidToken):
        tokens.verify(others.issue(USER, KEY), KEYS)
    with pytest.raises(InvalidToken):
        others.verify(tokens.issue(USER, KEY), KEYS)


def test_a_clock_may_be_a_little_ahead(tokens: AccessTokens) -> None:
    now = int(time.time())
    tokens.verify(token_of(iat=now + 4), KEYS)
    with pytest.raises(InvalidToken):
        tokens.verify(token_of(iat=now + 60), KEYS)


@pytest.mark.parametrize("ago", [0, 1, 3])
def test_no_clock_makes_a_token_live_longer(tokens: AccessTokens, ago: int) -> None:
    now = int(time.time())
    with pytest.raises(InvalidToken):
        tokens.verify(token_of(iat=now - 600, exp=now - ago), KEYS)


def test_a_token_lives_no_longer_than_ours_do(tokens: AccessTokens) -> None:
    now = int(time.time())
    assert tokens.verify(token_of(iat=now - 10, exp=now + 5000), KEYS).expires_at == now - 10 + 600
    with pytest.raises(InvalidToken):
        tokens.verify(token_of(iat=now - 601, exp=now + 5000), KEYS)


def test_nothing_long_is_looked_into(tokens: AccessTokens) -> None:
    longest, size = "", 0
    while len(token := token_of(pad="p" * size)) <= MAX_LENGTH:
        longest, size = token, size + 1
    tokens.verify(longest, KEYS)
    with pytest.raises(InvalidToken, match="too long"):
        tokens.verify(token, KEYS)


def test_claims_that_are_to_come_are_no_hindrance(tokens: AccessTokens) -> None:
    """A newer release may add one while this instance still runs."""
    tokens.verify(token_of(acr="2", amr=["pwd"], cnf={"jkt": "x"}), KEYS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
FUZZ = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ALPHABET = st.text(st.sampled_from(".-_=AQgw09é \n\x00"), max_size=200)


@FUZZ
@given(junk=st.text(min_size=1, max_size=60) | ALPHABET.filter(bool), at=st.integers(0, 600))
def test_no_other_text_is_a_token(tokens: AccessTokens, junk: str, at: int) -> None:
    good = token_of()
    for text in (junk, good + junk, junk + good, good[:at] + junk + good[at:]):
        with pytest.raises(InvalidToken):
            tokens.verify(text, KEYS)


@FUZZ
@given(names=st.sets(st.sampled_from(sorted(claims_of())), min_size=1), value=JSON)
def test_whatever_our_key_signs_is_admitted_or_refused(tokens: AccessTokens, names: set[str], value: object) -> None:
    """Anything but InvalidToken would be a 500."""
    try:
        caller = tokens.verify(signed(body=claims_of() | dict.fromkeys(names, value)), KEYS)
    except InvalidToken:
        return
    assert caller.kid == KID
    assert time.time() < caller.expires_at <= time.time() + 605


@FUZZ
@given(member=st.sampled_from(["alg", "typ", "kid", "jku", "crit", ""]), value=JSON)
def test_no_other_header_is_ours(tokens: AccessTokens, member: str, value: object) -> None:
    if HEADER.get(member) != value:
        with pytest.raises(InvalidToken):
            tokens.verify(signed({**HEADER, member: value}), KEYS)


def test_tokens_take_the_names_and_the_time_of_the_settings(told: dict[str, Any]) -> None:
    told_so: Settings = settings_from_environment(
        **told, token_issuer="https://login.example", token_audience="users", access_token_ttl=60
    )
    tokens = AccessTokens(told_so)
    _, claims = parts_of(tokens.issue(USER, KEY))
    assert (claims["iss"], claims["aud"], claims["exp"] - claims["iat"], tokens.ttl) == (
        "https://login.example",
        "users",
        60,
        60,
    )
