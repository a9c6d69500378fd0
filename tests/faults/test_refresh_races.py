"""Refresh tokens that two use at once, through two processes of the command API."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import psycopg
import pytest

from tests.plain_http import PLAIN
from tests.processes import StartProcess
from tests.sessions import PASSWORD, LoggedIn, log_in, refresh, register, tokens_in
from tests.tokens import authorized
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]
RACES = 1000
# that many sessions are carried on side by side
FAMILIES = 10
ADA = "ada@example.com"


class Instances(NamedTuple):
    one: httpx.AsyncClient
    other: httpx.AsyncClient


@pytest.fixture
async def instances(start_process: StartProcess) -> AsyncIterator[Instances]:
    processes = [
        start_process("command_api", broker=False, guesses_per_account=100, guesses_per_address=1_000_000)
        for _ in range(2)
    ]
    async with AsyncExitStack() as stack:
        for process in processes:
            await asyncio.to_thread(process.wait_until_ready)
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=process.url, headers=authorized(), timeout=30, verify=PLAIN, trust_env=False)
            )
            for process in processes
        ]
        yield Instances(*clients)


async def begin(instances: Instances, count: int) -> list[LoggedIn]:
    await register(instances.one, ADA)
    return [await log_in(instances[number % 2], ADA) for number in range(count)]


def living(owner: Owner, login: LoggedIn) -> bytes | None:
    """The hash of the one refresh token that the session has, None when it has ended."""
    rows = owner.execute(
        "SELECT secret_hash FROM identity.sessions WHERE id = %s AND ended_at IS NULL", (login.session,)
    ).fetchall()
    return rows[0]["secret_hash"] if rows else None


def families(owner: Owner) -> int:
    rows = owner.execute("SELECT count(*) AS living FROM identity.sessions WHERE ended_at IS NULL").fetchall()
    return rows[0]["living"]


async def race(instances: Instances, login: LoggedIn) -> list[httpx.Response]:
    return await asyncio.gather(*(refresh(instance, login.refresh) for instance in instances))


async def admits(instance: httpx.AsyncClient, login: LoggedIn) -> bool:
    answer = await instance.get("/sessions", headers=login.headers)
    assert answer.status_code in {200, 401}, answer.text
    return answer.status_code == 200


async def counted(instance: httpx.AsyncClient, event: str) -> int:
    """How often an instance has written this to its security log."""
    lines = (await instance.get("/metrics")).text.splitlines()
    name = f'muster_security_events_total{{event="{event}"}} '
    return sum(int(float(line.removeprefix(name))) for line in lines if line.startswith(name))


async def until_void(instances: Instances, login: LoggedIn) -> None:
    for instance in instances:

        async def void(instance: httpx.AsyncClient = instance) -> bool:
            return not await admits(instance, login)

        await aeventually(void, what="the access token is void", timeout=2)


async def test_of_two_refreshes_at_once_comes_one_family(instances: Instances, owner: Owner) -> None:
    logins = await begin(instances, FAMILIES)

    async def carry_on(login: LoggedIn) -> tuple[LoggedIn, LoggedIn]:
        before = login
        for _ in range(RACES // FAMILIES):
            answers = await race(instances, login)
            assert {answer.status_code for answer in answers} <= {200, 401}
            found = [tokens_in(answer) for answer in answers if answer.status_code == 200]
            # whoever was answered has the same next token, and that one lives
            assert len({next_.refresh for next_ in found}) == 1
            assert found[0].refresh != login.refresh
            assert living(owner, login) == found[0].token.secret_hash
            assert families(owner) == FAMILIES
            before, login = login, found[0]
        return before, login

    carried_on = await asyncio.gather(*(carry_on(login) for login in logins))
    rotated = [await counted(instance, "refresh.rotated") for instance in instances]
    repeated = [await counted(instance, "refresh.repeated") for instance in instances]
    assert sum(rotated) == sum(repeated) == RACES
    # either of them was the faster one at times
    assert min(rotated) > 0
    # nobody was taken for a thief
    assert owner.execute("SELECT number FROM identity.revocation_head").fetchall() == [{"number": 0}]
    for _, login in carried_on:
        assert [await admits(instance, login) for instance in instances] == [True, True]

    # and a replay after the grace ends the family everywhere
    owner.execute("UPDATE identity.sessions SET rotated_at = rotated_at - interval '11 s'")
    for before, login in carried_on:
        assert {answer.status_code for answer in await race(instances, before)} == {401}
        assert living(owner, login) is None
        assert {answer.status_code for answer in await race(instances, login)} == {401}
    for _, login in carried_on:
        await until_void(instances, login)
    assert families(owner) == 0


async def test_of_many_replays_at_once_none_revives_the_family(instances: Instances, owner: Owner) -> None:
    """The thief and the owner at the same moment, again and again: the living token and a used one."""
    for first in await begin(instances, 25):
        second = tokens_in(await refresh(instances.one, first.refresh))
        third = tokens_in(await refresh(instances.other, second.refresh))
        answers = await asyncio.gather(
            *(
                refresh(instances[number % 2], login.refresh)
                for number, login in enumerate([third, first, third, first])
            )
        )
        # the living one may have been first: what it got is over as well
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses[200] + statuses[401] == 4
        assert statuses[401] >= 2
        assert living(owner, first) is None
        for answer in answers:
            if answer.status_code == 200:
                assert (await refresh(instances.other, tokens_in(answer).refresh)).status_code == 401
                await until_void(instances, tokens_in(answer))
    assert families(owner) == 0


async def end(instance: httpx.AsyncClient, login: LoggedIn, user: UUID, ending: str) -> None:
    match ending:
        case "logout":
            answer = await instance.post("/logout", headers=login.headers)
        case "session":
            answer = await instance.delete(f"/sessions/{login.session}")
        case "password":
            answer = await instance.patch(f"/users/{user}", json={"password": PASSWORD})
        case _:
            answer = await instance.patch(f"/users/{user}", json={"status": "disabled"})
    assert answer.is_success, answer.text


@pytest.mark.parametrize("ending", ["logout", "session", "password", "disabled"])
async def test_a_refresh_at_the_moment_of_the_end_revives_nothing(instances: Instances, ending: str) -> None:
    user = await register(instances.one, ADA)

    async def carry_on(login: LoggedIn) -> list[LoggedIn]:
        """Until it is refused; all tokens that there were."""
        found = [login]
        while (answer := await refresh(instances.other, found[-1].refresh)).status_code == 200:
            found.append(tokens_in(answer))
        assert answer.status_code == 401
        return found

    lengths: list[int] = []
    for number in range(25):
        login = await log_in(instances[number % 2], ADA)
        found, _ = await asyncio.gather(carry_on(login), end(instances.one, login, user, ending))
        for instance in instances:
            assert (await refresh(instance, found[-1].refresh)).status_code == 401
        for one in {found[0], found[-1]}:
            await until_void(instances, one)
        lengths.append(len(found))
        if ending == "disabled":
            assert (await instances.one.patch(f"/users/{user}", json={"status": "active"})).status_code == 200
    # some of them did meet
    assert max(lengths) > 1
