import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from command_api.app import create_app
from events.email import canonical_email
from identity.guessing import Guesses, Target
from runtime.settings import Settings
from tests.calls import codes, create
from tests.databases import MakeSettings
from tests.integration.identity.conftest import Visit
from tests.logins import DIGESTER, EMAIL, PASSWORD, log_in, oauth_error, visitor
from tests.tokens import token_of
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]
MakeTarget = Callable[..., Target]
OTHER = "grace@example.com"
UNKNOWN = "nobody@example.com"
FREE = 5
POLICY = f'"login";q={FREE};w=86400'
DELAYS = [1, 2, 4, 8, 16, 32, 60, 60]
# structured fields (RFC 9651): a list of one string with integer parameters
ITEM = re.compile(r'"login"((?:;[a-z]+=[0-9]{1,15})+)')


@pytest.fixture(autouse=True)
async def _users(admin: httpx.AsyncClient) -> None:  # pyright: ignore[reportUnusedFunction]
    await create(admin, EMAIL, password=PASSWORD)
    await create(admin, OTHER, password=PASSWORD)


@pytest.fixture
def target(make_settings: MakeSettings) -> MakeTarget:
    """The keys under which failures are counted: target("10.0.0.1"), target("10.0.0.1", email)."""
    guesses = Guesses(make_settings("muster_command"), DIGESTER)

    def of(address: str | None, email: str = EMAIL) -> Target:
        return guesses.target(DIGESTER.email_key(canonical_email(email)), address)

    return of


@asynccontextmanager
async def started(settings: Settings) -> AsyncGenerator[FastAPI]:
    """An instance of the command API more."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


async def fail(client: httpx.AsyncClient, email: str = EMAIL, *, times: int = 1) -> httpx.Response:
    """Wrong tries that may all be made; gives the last answer."""
    for _ in range(times):
        answer = await log_in(client, email, "wrong-password")
        assert oauth_error(answer, 401) == "invalid_grant"
    return answer  # pyright: ignore[reportPossiblyUnboundVariable]


def refused_for(answer: httpx.Response) -> int:
    """The seconds that a try which came too early has to wait."""
    assert oauth_error(answer, 429) == "slow_down"
    assert answer.json()["type"] == "urn:muster:problem:too_many_attempts"
    seconds = int(answer.headers["retry-after"])
    assert limit_of(answer) == {"r": 0, "t": seconds}
    assert f"{seconds} s" in answer.json()["detail"]
    assert "www-authenticate" not in answer.headers
    return seconds


def limit_of(answer: httpx.Response) -> dict[str, int]:
    """The parameters of the RateLimit field, whose policy is the one that is told."""
    assert answer.headers["ratelimit-policy"] == POLICY
    found = ITEM.fullmatch(answer.headers["ratelimit"])
    assert found is not None, answer.headers["ratelimit"]
    return {name: int(value) for name, _, value in (part.partition("=") for part in found[1][1:].split(";"))}


def let_pass(owner: Owner, seconds: float) -> None:
    """Move all that was counted into the past, rather than wait."""
    owner.execute(
        "UPDATE identity.guesses SET next_at = next_at - make_interval(secs => %(by)s),"
        " last_at = last_at - make_interval(secs => %(by)s)",
        {"by": seconds},
    )


def count(owner: Owner, key: bytes) -> int | None:
    rows = owner.execute("SELECT failures FROM identity.guesses WHERE key = %s", (key,)).fetchall()
    return rows[0]["failures"] if rows else None


def besiege(owner: Owner, target: Target, failures: int) -> None:
    """So many wrong tries of this account were made from elsewhere."""
    owner.execute(
        "INSERT INTO identity.guesses (key, failures, next_at, last_at) VALUES (%s, %s, 'epoch', now())"
        " ON CONFLICT (key) DO UPDATE SET failures = excluded.failures",
        (target.account, failures),
    )


@pytest.mark.parametrize("email", [EMAIL, UNKNOWN])
async def test_each_wrong_try_costs_a_longer_wait(visit: Visit, owner: Owner, email: str) -> None:
    client = visit()
    for left in reversed(range(1, FREE)):
        assert limit_of(await fail(client, email)) == {"r": left, "t": 0}
    for delay in DELAYS:
        # whoever reads the headers knows without trying
        assert limit_of(await fail(client, email)) == {"r": 0, "t": delay}
        assert delay - 1 <= refused_for(await log_in(client, email, "wrong-password")) <= delay
        let_pass(owner, delay)


async def test_an_account_that_exists_and_one_that_does_not_are_limited_alike(visit: Visit) -> None:
    own = {"X-Request-Id": "request-1"}

    async def answers(client: httpx.AsyncClient, email: str) -> list[tuple[bytes, object]]:
        found: list[tuple[bytes, object]] = []
        for _ in range(FREE + 2):
            answer = await client.post("/login", data={"username": email, "password": "wrong-password"}, headers=own)
            found.append((answer.content, answer.headers.raw))
        assert answer.status_code == 429  # pyright: ignore[reportPossiblyUnboundVariable]
        return found

    known, unknown = await answers(visit("10.0.0.1"), EMAIL), await answers(visit("10.0.0.2"), UNKNOWN)
    assert known == unknown


async def test_the_right_password_has_to_wait_as_well(visit: Visit, owner: Owner) -> None:
    client = visit()
    await fail(client, times=FREE)
    refused_for(await log_in(client))
    let_pass(owner, 1)
    answer = await log_in(client)
    assert answer.status_code == 200
    assert limit_of(answer) == {"r": FREE, "t": 0}


async def test_the_wait_ends_by_itself(make_settings: MakeSettings) -> None:
    async with started(make_settings("muster_command", guesses_per_account=1)) as app:
        client = visitor(app)
        began = time.monotonic()
        answer = await log_in(client, password="wrong-password")
        assert answer.headers["ratelimit"] == '"login";r=0;t=1'

        async def admitted() -> bool:
            return (await log_in(client)).status_code == 200

        await aeventually(admitted, what="the end of the wait", timeout=10)
        assert time.monotonic() - began >= 1


async def test_a_success_forgets_the_accounts_failures(target: MakeTarget, visit: Visit, owner: Owner) -> None:
    client, tried = visit(), target("10.0.0.1")
    for _ in range(3):
        await fail(client, times=FREE - 1)
        assert (await log_in(client)).status_code == 200
        assert (count(owner, tried.pair), count(owner, tried.account)) == (None, None)
    assert limit_of(await fail(client))["r"] == FREE - 1


async def test_tries_that_come_too_early_change_nothing(visit: Visit, owner: Owner) -> None:
    client = visit()
    await fail(client, times=FREE + 0)
    before = owner.execute("SELECT * FROM identity.guesses ORDER BY key").fetchall()
    for _ in range(20):
        refused_for(await log_in(client, password="wrong-password"))
        refused_for(await log_in(client))
    assert owner.execute("SELECT * FROM identity.guesses ORDER BY key").fetchall() == before


async def test_an_address_that_must_wait_leaves_no_trace_of_the_accounts_it_makes_up(
    target: MakeTarget, visit: Visit, owner: Owner
) -> None:
    client, tried = visit(), target("10.0.0.1")
    await fail(client)
    owner.execute("UPDATE identity.guesses SET next_at = now() + interval '1 minute' WHERE key = %s", (tried.address,))
    before = owner.execute("SELECT count(*) FROM identity.guesses").fetchall()
    for number in range(20):
        assert refused_for(await log_in(client, f"made-up-{number}@example.com")) == 60
    assert owner.execute("SELECT count(*) FROM identity.guesses").fetchall() == before


async def test_nobody_is_locked_out_by_others(target: MakeTarget, visit: Visit, owner: Owner) -> None:
    attacker = visit("10.6.6.6")
    await fail(attacker, times=FREE)
    refused_for(await log_in(attacker))
    assert (await log_in(visit("10.0.0.1"))).status_code == 200
    # that it was somebody else who knew it does not help who guesses
    refused_for(await log_in(attacker))
    for failures in (99, 100, 101, 5000, 2_000_000_000):
        besiege(owner, target("10.0.0.1"), failures)
        assert (await log_in(visit("10.0.0.1"))).status_code == 200


@pytest.mark.parametrize("email", [EMAIL, UNKNOWN])
@pytest.mark.parametrize(
    ("failures", "delay"), [(98, 0), (99, 1), (100, 2), (105, 64), (108, 512), (109, 900), (100_000, 900)]
)
async def test_an_account_under_siege_gives_each_address_one_try_in_a_while(
    target: MakeTarget, visit: Visit, owner: Owner, email: str, failures: int, delay: int
) -> None:
    client, tried = visit(), target("10.0.0.1", email)
    besiege(owner, tried, failures)
    assert limit_of(await fail(client, email)) == {"r": max(0, 99 - failures), "t": delay}
    if not delay:
        return
    assert delay - 1 <= refused_for(await log_in(client, email)) <= delay
    # its other accounts are not under siege
    assert (await log_in(client, OTHER)).status_code == 200
    let_pass(owner, delay)
    assert (await log_in(client, email)).status_code == (200 if email == EMAIL else 401)


async def test_a_siege_ends_when_the_owner_comes(target: MakeTarget, visit: Visit, owner: Owner) -> None:
    besiege(owner, target("10.0.0.1"), 5000)
    assert (await log_in(visit("10.0.0.1"))).status_code == 200
    assert limit_of(await fail(visit("10.0.0.2")))["r"] == FREE - 1


async def test_an_address_is_limited_over_all_accounts(make_settings: MakeSettings, owner: Owner) -> None:
    async with started(make_settings("muster_command", guesses_per_address=8)) as app:
        client = visitor(app, "10.0.0.1")
        for number in range(7):
            assert limit_of(await fail(client, f"user{number}@example.com")) == {"r": min(4, 7 - number), "t": 0}
        for number, delay in enumerate(DELAYS):
            assert limit_of(await fail(client, f"victim{number}@example.com")) == {"r": 0, "t": delay}
            assert delay - 1 <= refused_for(await log_in(client, f"next{number}@example.com")) <= delay
            refused_for(await log_in(client))
            assert (await log_in(visitor(app, "10.0.0.2"))).status_code == 200
            let_pass(owner, delay)


async def test_an_account_of_ones_own_is_no_way_to_more_guesses(
    target: MakeTarget, make_settings: MakeSettings, owner: Owner
) -> None:
    settings = make_settings("muster_command", guesses_per_address=8)
    async with started(settings) as app:
        attacker = visitor(app, "10.6.6.6")
        for number in range(7):
            await fail(attacker, f"victim{number}@example.com")
            assert (await log_in(attacker, OTHER)).status_code == 200
            assert count(owner, target("10.6.6.6").address) == number + 1
        assert limit_of(await fail(attacker)) == {"r": 0, "t": 1}
        let_pass(owner, 1)
        for delay in DELAYS[1:]:
            assert (await log_in(attacker, OTHER)).status_code == 200
            assert limit_of(await fail(attacker)) == {"r": 0, "t": delay}
            refused_for(await log_in(attacker, OTHER))
            let_pass(owner, delay)


@pytest.mark.parametrize(
    ("first", "same", "other"),
    [
        ("2001:db8:0:100::1", "2001:db8:0:1ff:ffff:ffff:ffff:ffff", "2001:db8:0:200::1"),
        ("::ffff:10.0.0.1", "10.0.0.1", "::ffff:10.0.0.2"),
        ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("fe80::1%eth0", "fe80::2%eth1", "fe80:0:0:100::1"),
    ],
)
async def test_who_has_a_network_is_one_address(visit: Visit, first: str, same: str, other: str) -> None:
    await fail(visit(first), times=FREE)
    refused_for(await log_in(visit(same)))
    assert (await log_in(visit(other))).status_code == 200


async def test_of_tries_made_at_once_no_more_are_verified(visit: Visit) -> None:
    client = visit()
    began = time.monotonic()
    answers = await asyncio.gather(*(log_in(client, password=f"wrong-password-{n}") for n in range(50)))
    # on a slow machine the first delays may have passed meanwhile
    passed = sum(time.monotonic() - began >= total for total in (1, 3, 7, 15))
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {401, 429}
    assert FREE <= statuses[401] <= FREE + passed


async def test_right_passwords_in_between_hide_no_wrong_one(target: MakeTarget, visit: Visit, owner: Owner) -> None:
    client = visit("10.6.6.6")
    answers = await asyncio.gather(
        *(log_in(client, OTHER, PASSWORD if number % 2 else "wrong-password") for number in range(50))
    )
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[200] > 0
    assert count(owner, target("10.6.6.6").address) == statuses[401]


async def test_all_instances_count_together_and_a_restart_forgets_nothing(
    make_settings: MakeSettings, owner: Owner
) -> None:
    settings = make_settings("muster_command")
    async with started(settings) as one, started(settings) as two:
        for number in range(FREE):
            await fail(visitor((one, two)[number % 2]))
        for app in (one, two):
            refused_for(await log_in(visitor(app)))
    async with started(settings) as later:
        owner.execute("UPDATE identity.guesses SET next_at = next_at + interval '1 minute'")
        assert refused_for(await log_in(visitor(later))) > 50
        let_pass(owner, 61)
        assert limit_of(await fail(visitor(later))) == {"r": 0, "t": 2}


async def test_two_instances_at_once_verify_no_more_than_one(make_settings: MakeSettings) -> None:
    settings = make_settings("muster_command")
    async with started(settings) as one, started(settings) as two:
        clients = visitor(one), visitor(two)
        began = time.monotonic()
        answers = await asyncio.gather(*(log_in(clients[n % 2], password="wrong-password") for n in range(50)))
        passed = sum(time.monotonic() - began >= total for total in (1, 3, 7, 15))
    assert FREE <= Counter(answer.status_code for answer in answers)[401] <= FREE + passed


async def test_failures_are_forgotten_after_a_day(visit: Visit, owner: Owner) -> None:
    client = visit()
    await fail(client, times=FREE)
    let_pass(owner, 86_399 - 60)
    assert limit_of(await fail(client))["r"] == 0
    let_pass(owner, 86_401)
    assert limit_of(await fail(client)) == {"r": FREE - 1, "t": 0}


async def test_what_is_forgotten_is_not_kept(
    target: MakeTarget, make_settings: MakeSettings, owner: Owner, visit: Visit
) -> None:
    await fail(visit("10.0.0.1"))
    let_pass(owner, 86_401)
    await fail(visit("10.0.0.2"), UNKNOWN)
    old, new = target("10.0.0.1"), target("10.0.0.2", UNKNOWN)
    # an instance purges when it starts, and from time to time
    async with started(make_settings("muster_command")):

        async def purged() -> bool:
            return {count(owner, key) for key in (old.pair, old.account, old.address)} == {None}

        await aeventually(purged, what="the old failures being purged")
    assert {count(owner, key) for key in (new.pair, new.account, new.address)} == {1}


async def test_who_is_not_served_has_not_failed(target: MakeTarget, make_settings: MakeSettings, owner: Owner) -> None:
    """Of logins that come at once, all but one find no place to be hashed in."""
    settings = make_settings(
        "muster_command", hashing_queue_limit=1, hashing_threads=1, argon2_memory_kib=65536, argon2_time_cost=4
    )
    tried = target("10.0.0.1", UNKNOWN)
    async with started(settings) as app:
        client = visitor(app)
        answers = await asyncio.gather(*(log_in(client, UNKNOWN) for _ in range(10)))
        refused = [answer for answer in answers if answer.status_code != 401]
        assert len(refused) == 9
        for answer in refused:
            assert codes(answer, 503) == ["overloaded"]
            assert answer.headers["retry-after"] == "1"
        assert [count(owner, key) for key in (tried.pair, tried.account, tried.address)] == [1, 1, 1]
        # what is not about passwords goes on
        assert (await visitor(app, token=token_of()).get("/sessions")).status_code == 200


async def test_nothing_that_is_counted_tells_who_was_tried_from_where(visit: Visit, owner: Owner) -> None:
    await fail(visit("10.11.12.13"))
    rows = owner.execute("SELECT g::text AS row, length(key) AS length FROM identity.guesses g").fetchall()
    assert [row["length"] for row in rows] == [32, 32, 32]
    for told in (EMAIL.encode(), b"10.11.12.13", bytes([10, 11, 12, 13])):
        assert told.hex() not in str(rows)
