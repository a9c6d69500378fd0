import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from events.keyring import Kek
from identity.access_tokens import AccessTokens, Caller, InvalidToken
from identity.gatekeeper import Gatekeeper
from identity.signing_keys import wrapped_key
from identity.trust import Trust
from runtime.database import Session
from runtime.failures import Unavailable
from runtime.ids import new_id
from tests.databases import MakeSettings
from tests.forging import header, signed
from tests.tokens import ADMIN_ID, KEK, KID, claims_of, token_of
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]


class Counting(AccessTokens):
    """Tells how often a token was really verified."""

    verified = 0

    def verify(self, token: str, keys: Mapping[str, Ed25519PublicKey]) -> Caller:
        self.verified += 1
        return super().verify(token, keys)


@pytest.fixture
def tokens(make_settings: MakeSettings) -> Counting:
    return Counting(make_settings("muster_query"))


@pytest.fixture
async def trust(make_settings: MakeSettings) -> AsyncIterator[Trust]:
    """What an instance of the query API knows, looked up when it is asked for and by no clock."""
    url = make_settings("muster_query").database_url.get_secret_value()
    found = Trust(Session(url, application="muster test", timeout=5), keep=660)
    yield found
    await found.close()


@pytest.fixture
def gatekeeper(tokens: Counting, trust: Trust) -> Gatekeeper:
    return Gatekeeper(tokens, trust)


def revoke(owner: Owner, revoked: UUID) -> int:
    rows = owner.execute("SELECT identity.revoke(%s, false) AS number", (revoked,)).fetchall()
    return rows[0]["number"]


async def refuses(gatekeeper: Gatekeeper, token: str) -> bool:
    try:
        await gatekeeper.admit(token)
    except InvalidToken:
        return True
    return False


async def test_a_token_is_verified_once(gatekeeper: Gatekeeper, tokens: Counting) -> None:
    token, other = token_of(), token_of()
    callers = [await gatekeeper.admit(token) for _ in range(5)]
    assert (tokens.verified, len({id(caller) for caller in callers})) == (1, 1)
    await gatekeeper.admit(other)
    assert tokens.verified == 2


async def test_a_bad_token_is_not_remembered(gatekeeper: Gatekeeper, tokens: Counting) -> None:
    for _ in range(3):
        assert await refuses(gatekeeper, token_of(aud="urn:other"))
    assert tokens.verified == 3


async def test_a_remembered_token_is_refused_once_it_has_expired(gatekeeper: Gatekeeper, tokens: Counting) -> None:
    await gatekeeper.admit(token_of())
    expires_at = int(time.time()) + 2
    token = token_of(exp=expires_at)
    await gatekeeper.admit(token)

    async def refused() -> bool:
        return await refuses(gatekeeper, token)

    await aeventually(refused, what="the token has expired")
    assert time.time() >= expires_at
    assert tokens.verified == 2


@pytest.mark.parametrize("revoked", ["session", "subject"])
async def test_a_remembered_token_is_refused_once_it_is_revoked(
    gatekeeper: Gatekeeper, trust: Trust, tokens: Counting, owner: Owner, revoked: str
) -> None:
    session, subject = new_id(), new_id()
    token, another = token_of(subject, sid=str(session)), token_of()
    caller = await gatekeeper.admit(token)
    await gatekeeper.check(caller)
    number = revoke(owner, session if revoked == "session" else subject)
    await trust.look()
    assert await refuses(gatekeeper, token)
    assert tokens.verified == 1
    with pytest.raises(InvalidToken):
        await gatekeeper.check(caller)
    await gatekeeper.admit(another)
    # what is issued after the revocation reflects it
    await gatekeeper.admit(token_of(subject, sid=str(session), rev=number))


async def test_a_revocation_is_heeded_before_what_is_known_grows_old(gatekeeper: Gatekeeper, owner: Owner) -> None:
    """Nobody follows the database here: the knowledge is looked up anew because of its age alone."""
    token = token_of()
    await gatekeeper.admit(token)
    revoke(owner, ADMIN_ID)

    async def refused() -> bool:
        return await refuses(gatekeeper, token)

    await aeventually(refused, what="the revocation is heeded", timeout=5)


async def test_a_remembered_token_is_refused_once_its_key_is_removed(
    gatekeeper: Gatekeeper, trust: Trust, tokens: Counting, owner: Owner
) -> None:
    private = Ed25519PrivateKey.generate()
    key = wrapped_key(private, Kek(KEK))
    owner.execute(
        "INSERT INTO identity.signing_keys (kid, public_key, wrapped, kek_id, signs_from)"
        " VALUES (%s, %s, %s, %s, now())",
        (key.kid, key.public_key, key.wrapped, key.kek_id),
    )
    token, another = signed(header(kid=key.kid), key=private), token_of()
    await gatekeeper.admit(token)
    await gatekeeper.admit(another)
    owner.execute("UPDATE identity.signing_keys SET verifies_until = now() WHERE kid = %s", (key.kid,))
    await trust.look()
    assert await refuses(gatekeeper, token)
    assert tokens.verified == 2
    assert await refuses(gatekeeper, signed(header(kid=key.kid), claims_of(), key=private))
    await gatekeeper.admit(another)


async def test_a_key_is_trusted_until_its_end_and_no_longer(gatekeeper: Gatekeeper, trust: Trust, owner: Owner) -> None:
    for seconds, refused in ((3600, False), (-1, True)):
        owner.execute("UPDATE identity.signing_keys SET verifies_until = now() + make_interval(secs => %s)", (seconds,))
        await trust.look()
        assert trust.keys.keys() == (set[str]() if refused else {KID})
        assert await refuses(gatekeeper, token_of()) is refused


async def test_what_another_instance_has_seen_already_is_looked_up(gatekeeper: Gatekeeper, owner: Owner) -> None:
    await gatekeeper.admit(token_of())
    number = revoke(owner, new_id())
    assert (await gatekeeper.admit(token_of(rev=number))).reflects == number


async def test_a_token_of_another_history_is_refused(gatekeeper: Gatekeeper, owner: Owner) -> None:
    number = revoke(owner, new_id())
    assert await refuses(gatekeeper, token_of(rev=number + 1))


async def test_a_remembered_token_of_another_history_is_refused(
    gatekeeper: Gatekeeper, trust: Trust, owner: Owner
) -> None:
    """The database was put back to an earlier day: what it revokes from now on has numbers that were there before."""
    subject = new_id()
    numbers = [revoke(owner, new_id()) for _ in range(3)]
    token = token_of(subject, rev=numbers[-1])
    await gatekeeper.admit(token)
    owner.execute("DELETE FROM identity.revocations")
    owner.execute("UPDATE identity.revocation_head SET number = 1")
    await trust.look()
    assert await refuses(gatekeeper, token)


async def test_only_so_many_tokens_are_remembered(
    gatekeeper: Gatekeeper, tokens: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("identity.gatekeeper.REMEMBERED", 3)
    many = [token_of() for _ in range(4)]
    for token in many:
        await gatekeeper.admit(token)
    assert tokens.verified == 4
    for token in many[1:]:
        await gatekeeper.admit(token)
    assert tokens.verified == 4
    # the oldest gave way, and is good all the same
    await gatekeeper.admit(many[0])
    assert tokens.verified == 5


async def test_nobody_is_admitted_while_nobody_can_tell_what_was_revoked(tokens: Counting) -> None:
    trust = Trust(Session("postgresql://127.0.0.1:1/nowhere", application="muster test", timeout=5), keep=660)
    with pytest.raises(Unavailable):
        await Gatekeeper(tokens, trust).admit(token_of())
    assert tokens.verified == 0
    await trust.close()
