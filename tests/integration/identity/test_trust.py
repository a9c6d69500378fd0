"""What an instance knows of keys and revocations: in order, no older than it may be, and all of it."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, LiteralString
from uuid import UUID

import httpx
import jwt
import psycopg
import pytest

from command_api.app import create_app as create_command_app
from events.keyring import Kek
from identity.access_tokens import AccessTokens, InvalidToken
from identity.gatekeeper import Gatekeeper
from identity.sessions import Sessions
from identity.trust import Trust
from query_api.app import create_app as create_query_app
from runtime.database import Session
from runtime.failures import Unavailable
from runtime.ids import new_id
from tests.apps import client_of
from tests.calls import codes, create
from tests.databases import MakeSettings, as_role
from tests.proxy import proxy_to
from tests.tokens import ADMIN_ID, KEK, KID, authorized, token_of
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]
Open = Callable[..., Trust]
KEEP = 600.0


@pytest.fixture
async def trusting(database_url: str) -> AsyncIterator[Open]:
    """A Trust of this test's database, closed when the test ends."""
    opened: list[Trust] = []

    def trust(*, keep: float = KEEP, kek: Kek | None = None, url: str = database_url) -> Trust:
        role = "muster_query" if kek is None else "muster_command"
        session = Session(as_role(url, role), application="trust of a test", timeout=5, reads=True)
        opened.append(Trust(session, keep=keep, kek=kek))
        return opened[-1]

    yield trust
    for one in opened:
        await one.close()


def revoke(owner: Owner, revoked: UUID, *, sessions: bool = False) -> int:
    return owner.execute("SELECT identity.revoke(%s, %s) AS number", (revoked, sessions)).fetchall()[0]["number"]


def voids(trust: Trust, revoked: UUID, *, reflects: int = 0) -> bool:
    as_subject = trust.voids(str(revoked), str(new_id()), reflects)
    assert as_subject == trust.voids(str(new_id()), str(revoked), reflects)
    return as_subject


async def test_what_was_revoked_is_void_for_who_does_not_reflect_it(trusting: Open, owner: Owner) -> None:
    trust, (first, second, other) = trusting(), (new_id(), new_id(), new_id())
    await trust.look()
    assert trust.number == 0
    assert not voids(trust, first)
    assert (revoke(owner, first), revoke(owner, second), revoke(owner, first)) == (1, 2, 3)
    await trust.look()
    assert trust.number == 3
    assert [voids(trust, first, reflects=number) for number in range(5)] == [True, True, True, False, False]
    assert [voids(trust, second, reflects=number) for number in range(4)] == [True, True, False, False]
    assert not voids(trust, other)


async def test_an_instance_that_starts_knows_what_was_revoked_before(trusting: Open, owner: Owner) -> None:
    recent, old = new_id(), new_id()
    revoke(owner, old)
    revoke(owner, recent)
    owner.execute(
        "UPDATE identity.revocations SET revoked_at = now() - make_interval(secs => %s) WHERE id = %s", (KEEP + 1, old)
    )
    trust = trusting()
    await trust.look()
    assert trust.number == 2
    assert voids(trust, recent)
    # no token that it could void is still alive
    assert not voids(trust, old)


async def test_knowledge_is_dropped_when_no_token_lives_any_more(trusting: Open, owner: Owner) -> None:
    trust, lasting = trusting(keep=1.2), trusting()
    once, again = new_id(), new_id()
    revoke(owner, once)
    revoke(owner, again)
    await asyncio.gather(trust.look(), lasting.look())
    assert voids(trust, once)
    assert voids(trust, again)

    async def gone(revoked: UUID) -> bool:
        await trust.look()
        return not voids(trust, revoked)

    await asyncio.sleep(0.8)
    number = revoke(owner, again)
    await trust.look()
    await aeventually(lambda: gone(once), what="the first revocation is forgotten", timeout=5)
    # what was revoked once more meanwhile is kept for as long again
    assert voids(trust, again, reflects=number - 1)
    await aeventually(lambda: gone(again), what="the second revocation is forgotten", timeout=5)
    assert voids(lasting, once)


async def test_a_look_knows_what_was_committed_before_it_was_asked_for(trusting: Open, owner: Owner) -> None:
    trust = trusting()
    for _ in range(200):
        # one is under way when the revocation commits: it may have read before
        under_way = asyncio.create_task(trust.look())
        await asyncio.sleep(0)
        revoked = new_id()
        number = revoke(owner, revoked)
        await trust.look()
        assert trust.number == number
        assert voids(trust, revoked)
        await under_way


async def test_numbers_are_taken_in_the_order_of_commits(
    commands: httpx.AsyncClient, make_settings: MakeSettings, database_url: str, trusting: Open, owner: Owner
) -> None:
    """Logouts on one connection, appends on another, more from a second instance; and two that watch all along."""
    settings = make_settings("muster_command")
    users = [UUID((await create(commands, f"user{number}@example.com"))["id"]) for number in range(60)]
    sessions = [new_id() for _ in range(120)]
    with owner.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO identity.sessions (id, subject, reflects, created_at, last_used_at, expires_at)"
            " VALUES (%s, %s, 0, now(), now(), now() + interval '1 h')",
            [(session, ADMIN_ID) for session in sessions],
        )
    connections = [Session(as_role(database_url, "muster_command"), application="a test", timeout=20) for _ in range(3)]
    ending, ending_too, watching = connections
    trust = trusting()
    done = asyncio.Event()

    async def watch() -> list[int]:
        seen: list[int] = []
        while True:
            last = done.is_set()
            rows = await watching.fetch(
                "SELECT h.number AS head, ARRAY(SELECT r.number FROM identity.revocations r WHERE r.number > %s"
                " ORDER BY r.number) AS news FROM identity.revocation_head h",
                (len(seen),),
            )
            seen += rows[0]["news"]
            # no gap that is filled later, and never a head before what it counts
            assert seen == list(range(1, rows[0]["head"] + 1))
            if last:
                return seen

    async def follow() -> None:
        while not done.is_set():
            await trust.look()

    async def end(connection: Session, mine: list[UUID]) -> None:
        found = Sessions(connection, settings)
        for session in mine:
            assert await found.end(session, owner=ADMIN_ID)

    async def change(client: httpx.AsyncClient, user: UUID, number: int) -> None:
        body = {"password": f"a heron on quay {number}"} if number % 2 else {"roles": ["auditor"]}
        answer = await client.patch(f"/users/{user}", json=body)
        assert answer.status_code == 200, answer.text

    async with client_of(create_command_app(settings)) as elsewhere:
        seeing, following = asyncio.create_task(watch()), asyncio.create_task(follow())
        await asyncio.gather(
            end(ending, sessions[::2]),
            end(ending_too, sessions[1::2]),
            *(change((commands, elsewhere)[number % 2], user, number // 2) for number, user in enumerate(users)),
        )
        done.set()
        seen = await seeing
        await following
    for connection in connections:
        await connection.close()
    assert seen == list(range(1, 181))
    numbers = owner.execute("SELECT number FROM identity.revocations ORDER BY number").fetchall()
    assert [row["number"] for row in numbers] == seen
    await trust.look()
    assert trust.number == 180
    assert all(voids(trust, revoked) for revoked in (*sessions, *users))


async def test_a_revocation_that_is_not_committed_holds_nobody_up(
    trusting: Open, database_url: str, owner: Owner
) -> None:
    trust, revoked = trusting(), new_id()
    with psycopg.connect(database_url) as other:
        other.execute("SELECT identity.revoke(%s, true)", (revoked,))
        await trust.look()
        assert trust.number == 0
        assert not voids(trust, revoked)
    await trust.look()
    assert trust.number == 1
    assert voids(trust, revoked)
    assert revoke(owner, new_id()) == 2


async def test_a_database_that_was_put_back_is_noticed(trusting: Open, owner: Owner) -> None:
    trust, (kept, lost, new) = trusting(), (new_id(), new_id(), new_id())
    revoke(owner, kept)
    for _ in range(9):
        revoke(owner, lost)
    await trust.look()
    assert voids(trust, lost)
    owner.execute("UPDATE identity.revocation_head SET number = 1")
    owner.execute("DELETE FROM identity.revocations WHERE number > 1")
    await trust.look()
    assert trust.number == 1
    assert voids(trust, kept)
    assert not voids(trust, lost)
    # numbers that were seen before the restore are given anew: they count
    assert revoke(owner, new) == 2
    await trust.look()
    assert voids(trust, new)


async def test_a_token_of_a_history_that_was_put_back_is_refused_wherever_it_was_remembered(
    make_settings: MakeSettings, trusting: Open, owner: Owner
) -> None:
    tokens = AccessTokens(make_settings())
    remembering, fresh = trusting(), trusting()
    keepers = Gatekeeper(tokens, remembering), Gatekeeper(tokens, fresh)
    for _ in range(5):
        revoke(owner, new_id())
    token = token_of(rev=5)
    caller = await keepers[0].admit(token)
    owner.execute("UPDATE identity.revocation_head SET number = 2")
    owner.execute("DELETE FROM identity.revocations WHERE number > 2")
    # numbered 3: the token, of another 5, would seem to know of it
    revoke(owner, ADMIN_ID)
    await remembering.look()
    for keeper in keepers:
        with pytest.raises(InvalidToken):
            await keeper.admit(token)
    with pytest.raises(InvalidToken):
        await keepers[0].check(caller)


async def test_a_token_that_reflects_more_than_is_known_makes_the_instance_look(
    make_settings: MakeSettings, trusting: Open, owner: Owner
) -> None:
    trust = trusting()
    keeper = Gatekeeper(AccessTokens(make_settings()), trust)
    await trust.look()
    for number in range(1, 21):
        revoked, session = new_id(), new_id()
        assert revoke(owner, revoked) == number
        # issued elsewhere, after what is not known here
        assert (await keeper.admit(token_of(subject=revoked, sid=str(session), rev=number))).reflects == number
        with pytest.raises(InvalidToken):
            await keeper.admit(token_of(subject=revoked, sid=str(session), rev=number - 1))


async def test_old_knowledge_admits_nobody_without_a_look(make_settings: MakeSettings, database_url: str) -> None:
    async with proxy_to(database_url) as (proxy, url):
        session = Session(as_role(url, "muster_query"), application="a test", timeout=5, reads=True)
        trust = Trust(session, keep=KEEP)
        keeper, token = Gatekeeper(AccessTokens(make_settings()), trust), token_of()
        caller = await keeper.admit(token)
        await proxy.refuse()
        # what is known is good for a while
        assert trust.fresh
        await keeper.admit(token)

        async def old() -> bool:
            return not trust.fresh

        await aeventually(old, what="the knowledge is old", timeout=5)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await keeper.admit(token)
            with pytest.raises(Unavailable):
                await keeper.check(caller)
        await proxy.start()
        assert (await keeper.admit(token)).subject == caller.subject
        await trust.close()


@pytest.mark.parametrize(
    ("harm", "remedy"),
    [
        (
            "ALTER TABLE identity.revocation_head RENAME TO elsewhere",
            "ALTER TABLE identity.elsewhere RENAME TO revocation_head",
        ),
        (
            "REVOKE SELECT ON identity.revocations FROM muster_query",
            "GRANT SELECT ON identity.revocations TO muster_query",
        ),
        ("DELETE FROM identity.revocation_head", "INSERT INTO identity.revocation_head (number) VALUES (0)"),
        (
            "ALTER TABLE identity.signing_keys RENAME COLUMN public_key TO elsewhere",
            "ALTER TABLE identity.signing_keys RENAME COLUMN elsewhere TO public_key",
        ),
    ],
)
async def test_what_cannot_be_read_is_unavailable_and_is_followed_again_when_it_can(
    make_settings: MakeSettings, owner: Owner, harm: LiteralString, remedy: LiteralString
) -> None:
    app = create_query_app(make_settings("muster_query"))
    async with client_of(app) as client:

        async def status(expected: int) -> bool:
            return (await client.get("/users")).status_code == expected

        async def followed() -> bool:
            return app.state.door.trust.fresh

        await aeventually(lambda: status(200), what="callers are admitted")
        owner.execute(harm)
        await aeventually(lambda: status(503), what="callers are refused", timeout=5)
        assert codes(await client.get("/users"), 503) == ["unavailable"]
        assert codes(await client.get("/readyz"), 503) == ["identity"]
        owner.execute(remedy)
        # without a request that asks for it
        await aeventually(followed, what="it is followed again", timeout=5)
        assert (await client.get("/users")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200


async def test_an_unforeseen_failure_does_not_end_the_following(make_settings: MakeSettings, owner: Owner) -> None:
    app = create_command_app(make_settings("muster_command"))

    async def followed() -> bool:
        return app.state.door.trust.fresh

    async def not_followed() -> bool:
        return not app.state.door.trust.fresh

    async with client_of(app) as client:
        await aeventually(followed, what="it is followed")
        # it opens, and is no key
        owner.execute(
            "INSERT INTO identity.signing_keys (kid, public_key, wrapped, kek_id, signs_from)"
            " VALUES ('odd', %s, %s, 'x', now())",
            (secrets.token_bytes(32), Kek(KEK).wrap(b"not a seed")),
        )
        await aeventually(not_followed, what="it cannot be followed", timeout=5)
        assert (await client.get("/sessions")).status_code >= 500
        owner.execute("DELETE FROM identity.signing_keys WHERE kid = 'odd'")
        await aeventually(followed, what="it is followed again", timeout=5)
        assert (await client.get("/sessions")).status_code == 200


async def _admits(client: httpx.AsyncClient) -> bool:
    return (await client.get("/sessions")).status_code == 200


async def test_an_instance_is_ready_when_it_knows_and_not_before(make_settings: MakeSettings, owner: Owner) -> None:
    owner.execute("UPDATE identity.signing_keys SET verifies_until = now()")
    async with client_of(create_query_app(make_settings("muster_query"))) as client:

        async def unready() -> bool:
            answer = await client.get("/readyz")
            return codes(answer, 503) == ["identity"] and "no signing key" in answer.json()["detail"]

        await aeventually(unready, what="it says that there is no key", timeout=5)
        assert codes(await client.get("/users"), 401) == ["invalid_token"]
        owner.execute("UPDATE identity.signing_keys SET verifies_until = NULL")

        async def ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await aeventually(ready, what="it is ready", timeout=5)


async def test_a_verified_token_is_void_the_moment_its_key_is(commands: httpx.AsyncClient, owner: Owner) -> None:
    assert await _admits(commands)
    owner.execute("UPDATE identity.signing_keys SET verifies_until = now() WHERE kid = %s", (KID,))

    async def refused() -> bool:
        return not await _admits(commands)

    await aeventually(refused, what="the token is refused", timeout=2)
    assert codes(await commands.get("/sessions"), 401) == ["invalid_token"]


async def test_a_token_is_remembered_no_longer_than_it_lives(commands: httpx.AsyncClient) -> None:
    """Its own end counts, not the moment it was last seen to be good."""
    now = int(time.time())
    headers = authorized(iat=now - 598, exp=now + 2)
    assert (await commands.get("/sessions", headers=headers)).status_code == 200
    assert jwt.decode(headers["Authorization"][7:], options={"verify_signature": False})["exp"] == now + 2

    async def refused() -> bool:
        return (await commands.get("/sessions", headers=headers)).status_code == 401

    await aeventually(refused, what="the token is refused", timeout=10)
    assert time.time() >= now + 2
