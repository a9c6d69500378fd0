"""Revocations: heeded by every instance of both APIs within a second, or nobody is let through."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import jwt
import psycopg
import pytest

from tests.calls import codes
from tests.databases import as_role
from tests.plain_http import PLAIN
from tests.processes import ROLES, Process, StartProcess
from tests.proxy import Proxy, proxy_to
from tests.sessions import PASSWORD, LoggedIn, log_in, refresh, register, tokens_in
from tests.tokens import authorized
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]

# from the acknowledgement of a revocation to the last moment when a request that is let through may have started
WITHIN = 1.0
# how long it may take to find out, for all of them, that a database does not answer
ANSWERED_WITHIN = 20.0
# what each API answers to whoever may call it at all, whatever the projector has done
PATHS = {"command_api": "/sessions", "query_api": "/users"}
NEW_PASSWORD = "another heron on the quay"


class Instance(NamedTuple):
    process: Process
    client: httpx.AsyncClient

    async def status(self, headers: dict[str, str]) -> int:
        return (await self.client.get(PATHS[self.process.name], headers=headers)).status_code


class Seen(NamedTuple):
    """An answer, and when its request started."""

    started: float
    status: int


class Poll:
    """Asks an instance over and over with the same token, until it is told to end."""

    def __init__(self, instance: Instance, headers: dict[str, str]) -> None:
        self.instance = instance
        self.seen: list[Seen] = []
        self._headers = headers
        self._ended = asyncio.Event()
        self._work = asyncio.create_task(self._ask())

    async def end(self) -> list[Seen]:
        self._ended.set()
        await self._work
        return self.seen

    async def _ask(self) -> None:
        while not self._ended.is_set():
            started = time.monotonic()
            self.seen.append(Seen(started, await self.instance.status(self._headers)))
            await asyncio.sleep(0.002)


@pytest.fixture
async def instances(start_process: StartProcess) -> AsyncIterator[list[Instance]]:
    """Two of the command API, then two of the query API."""
    # one after the other waits while all of them start
    processes = [
        start_process(name, broker=False, guesses_per_account=100, guesses_per_address=1_000_000)
        for name in ("command_api", "command_api", "query_api", "query_api")
    ]
    async with AsyncExitStack() as stack:
        yield [await ready(stack, process) for process in processes]


async def ready(stack: AsyncExitStack, process: Process) -> Instance:
    # in a thread: a proxy of this test may be on the way to the database
    await asyncio.to_thread(process.wait_until_ready)
    client = httpx.AsyncClient(base_url=process.url, headers=authorized(), timeout=30, verify=PLAIN, trust_env=False)
    return Instance(process, await stack.enter_async_context(client))


async def statuses(instances: list[Instance], login: LoggedIn) -> list[int]:
    return await asyncio.gather(*(instance.status(login.headers) for instance in instances))


def scopes(login: LoggedIn) -> set[str]:
    return set(jwt.decode(login.access, options={"verify_signature": False})["scope"].split())


Revoke = Callable[[httpx.AsyncClient, UUID, LoggedIn], Awaitable[httpx.Response]]
REVOCATIONS: dict[str, Revoke] = {
    "logout": lambda client, _, login: client.post("/logout", headers=login.headers),
    "logout by the refresh token": lambda client, _, login: client.post(
        "/logout", data={"refresh_token": login.refresh}
    ),
    "the session ended by its owner": lambda client, _, login: client.delete(
        f"/sessions/{login.session}", headers=login.headers
    ),
    "the session ended by an administrator": lambda client, _, login: client.delete(f"/sessions/{login.session}"),
    "one's own new password": lambda client, _, login: client.patch(
        "/users/me", json={"password": NEW_PASSWORD, "current_password": PASSWORD}, headers=login.headers
    ),
    "a new password by an administrator": lambda client, user, _: client.patch(
        f"/users/{user}", json={"password": NEW_PASSWORD}
    ),
    "disabled": lambda client, user, _: client.patch(f"/users/{user}", json={"status": "disabled"}),
    "deleted": lambda client, user, _: client.delete(f"/users/{user}"),
    "other roles": lambda client, user, _: client.patch(f"/users/{user}", json={"roles": ["auditor"]}),
    "a refresh token used again": lambda client, _, login: client.post(
        "/refresh", data={"refresh_token": login.refresh}
    ),
}


async def test_every_revocation_is_heeded_by_every_instance_within_a_second(
    instances: list[Instance], owner: Owner, record_testsuite_property: Callable[[str, object], None]
) -> None:
    writers = [instance.client for instance in instances if instance.process.name == "command_api"]
    for number, (what, revoke) in enumerate(REVOCATIONS.items()):
        writer = writers[number % 2]
        email = f"user{number}@example.com"
        user = await register(writer, email, "operator")
        login, bystander = await log_in(writer, email), await log_in(writer, email)
        if what == "a refresh token used again":
            tokens_in(await refresh(writer, login.refresh))
            owner.execute(
                "UPDATE identity.sessions SET rotated_at = now() - interval '1 h' WHERE id = %s", (login.session,)
            )
        assert await statuses(instances, login) == [200] * 4, what

        polls = [Poll(instance, login.headers) for instance in instances]
        await aeventually(lambda polls=polls: _all_asked(polls), what="every instance was asked")
        answer = await revoke(writer, user, login)
        acknowledged = time.monotonic()
        assert answer.is_success or what == "a refresh token used again", (what, answer.text)
        await asyncio.sleep(WITHIN + 0.25)
        delays: list[float] = []
        for poll in polls:
            seen = await poll.end()
            late = [one for one in seen if one.started > acknowledged + WITHIN]
            assert late, what
            # 503: an instance too busy to know lets nobody through either
            assert {one.status for one in late} <= {401, 503}, what
            # what an instance has learned it does not forget
            first = [one.status for one in seen].index(401)
            assert {one.status for one in seen[first:]} <= {401, 503}, what
            delays.append(max(0.0, max(one.started for one in seen if one.status == 200) - acknowledged))
        record_testsuite_property(f"last admitted, seconds after: {what}", [round(delay, 3) for delay in delays])

        ends_others = what in {"one's own new password", "a new password by an administrator", "disabled", "deleted"}
        for client in writers:
            if what != "other roles":
                assert codes(await refresh(client, login.refresh), 401) == ["invalid_grant"], what
        if what == "other roles":
            carried_on = tokens_in(await refresh(writers[0], login.refresh))
            assert scopes(login) == {"self", "users:read", "ops"}
            assert scopes(carried_on) == {"self", "users:read", "events:read"}
            assert await statuses(instances, carried_on) == [200] * 4
        if ends_others:
            assert await statuses(instances, bystander) == [401] * 4, what
            assert codes(await refresh(writers[1], bystander.refresh), 401) == ["invalid_grant"], what
        else:
            # with new roles the tokens of all sessions are void, and the sessions go on
            assert await statuses(instances, bystander) == [401 if what == "other roles" else 200] * 4, what
            assert await statuses(instances, tokens_in(await refresh(writers[1], bystander.refresh))) == [200] * 4, what


async def _all_asked(polls: list[Poll]) -> bool:
    return all(len(poll.seen) > 3 for poll in polls)


async def test_who_logs_in_after_a_revocation_is_admitted_everywhere_at_once(instances: list[Instance]) -> None:
    """Tokens that reflect a revocation are good where it is not known yet."""
    one, other, *_ = (instance.client for instance in instances)
    user = await register(one, "ada@example.com", "operator")
    for roles in (["auditor"], ["operator"]) * 10:
        login = await log_in(other)
        assert (await one.patch(f"/users/{user}", json={"roles": roles})).status_code == 200
        assert await statuses(instances, tokens_in(await refresh(other, login.refresh))) == [200] * 4
        assert await statuses(instances, await log_in(one)) == [200] * 4
        assert (await other.post("/logout", data={"refresh_token": login.refresh})).status_code == 204
        assert await statuses(instances, await log_in(other)) == [200] * 4


async def test_an_instance_without_its_database_lets_nobody_through_and_recovers(
    start_process: StartProcess, database_url: str
) -> None:
    async with proxy_to(database_url) as (proxy, url), AsyncExitStack() as stack:
        healthy = await ready(stack, start_process("command_api", broker=False))
        cut = [
            await ready(stack, start_process(name, broker=False, database_url=as_role(url, ROLES[name])))
            for name in PATHS
        ]
        await register(healthy.client, "ada@example.com", "operator")
        staying, leaving = await log_in(healthy.client), await log_in(healthy.client)
        assert await statuses(cut, staying) == await statuses(cut, leaving) == [200] * 2
        pids = [instance.process.popen.pid for instance in cut]
        # who has no scope at all is told so without a look at anything else than the token
        admitted = {"command_api": 200, "query_api": 403}
        scopeless = authorized(scopes=frozenset())
        assert [await instance.status(scopeless) for instance in cut] == list(admitted.values())

        polls = [
            Poll(instance, headers) for instance in cut for headers in (staying.headers, leaving.headers, scopeless)
        ]
        await proxy.refuse()
        refused_at = time.monotonic()
        # revoked where these two cannot hear of it
        assert (await healthy.client.post("/logout", headers=leaving.headers)).status_code == 204
        await asyncio.sleep(WITHIN + 0.5)
        for poll in polls:
            late = [one for one in await poll.end() if one.started > refused_at + WITHIN]
            assert {one.status for one in late} == {503}
        for instance in cut:
            answer = await instance.client.get(PATHS[instance.process.name], headers=staying.headers)
            assert codes(answer, 503) == ["unavailable"]
            assert answer.headers["retry-after"] == "1"
            assert codes(await instance.client.get("/.well-known/jwks.json"), 503) == ["unavailable"]
            assert "identity" in codes(await instance.client.get("/readyz"), 503)
        assert await healthy.status(staying.headers) == 200

        polls = [Poll(instance, leaving.headers) for instance in cut]
        await proxy.start()
        for instance in cut:

            async def admits(instance: Instance = instance) -> bool:
                return await instance.status(staying.headers) == 200

            await aeventually(admits, what="the instance has recovered", timeout=10)
        for poll in polls:
            # who was revoked meanwhile is not let in by a recovery
            assert {one.status for one in await poll.end()} <= {401, 503}
        assert await statuses(cut, leaving) == [401] * 2
        assert [instance.process.popen.pid for instance in cut] == pids
        assert all(instance.process.popen.poll() is None for instance in cut)


async def test_a_database_that_does_not_answer_lets_nobody_through(
    start_process: StartProcess, database_url: str
) -> None:
    async with proxy_to(database_url) as (proxy, url), AsyncExitStack() as stack:
        frozen = [
            await ready(stack, start_process(name, broker=False, database_url=as_role(url, ROLES[name])))
            for name in PATHS
        ]
        await _refuses_while(frozen, proxy.freeze_answers, lambda: _thaw(proxy))


async def test_revocations_that_cannot_be_read_let_nobody_through_though_all_else_works(
    instances: list[Instance], database_url: str
) -> None:
    with psycopg.connect(database_url) as blocker:
        await _refuses_while(
            instances,
            lambda: blocker.execute("LOCK TABLE identity.revocation_head IN ACCESS EXCLUSIVE MODE"),
            blocker.rollback,
        )


async def _refuses_while(instances: list[Instance], break_: Callable[[], object], mend: Callable[[], object]) -> None:
    headers, scopeless = authorized(), authorized(scopes=frozenset())
    assert {await instance.status(headers) for instance in instances} == {200}
    break_()
    await asyncio.sleep(WITHIN)
    asked: list[asyncio.Task[int]] = []
    for _ in range(10):
        # one after the other, while those before are still being thought about
        asked += [asyncio.create_task(instance.status(one)) for instance in instances for one in (headers, scopeless)]
        await asyncio.sleep(0.1)
    async with asyncio.timeout(ANSWERED_WITHIN):
        assert set(await asyncio.gather(*asked)) == {503}
        for instance in instances:
            answer = await instance.client.get(PATHS[instance.process.name], headers=headers)
            # nothing was to be changed: there is no outcome that nobody knows
            assert codes(answer, 503) == ["unavailable"]
    mend()
    for instance in instances:

        async def admits(instance: Instance = instance) -> bool:
            return await instance.status(headers) == 200

        await aeventually(admits, what="the instance has recovered", timeout=20)
        assert instance.process.popen.poll() is None


def _thaw(proxy: Proxy) -> None:
    proxy.cut()
    proxy.thaw()


async def test_an_instance_that_was_paused_admits_nobody_on_what_it_knew_before(instances: list[Instance]) -> None:
    writer, *paused = instances
    await register(writer.client, "ada@example.com", "operator")
    staying, *leaving = [await log_in(writer.client) for _ in range(21)]
    for login in (staying, *leaving):
        assert await statuses(paused, login) == [200] * 3
    for instance in paused:
        os.kill(instance.process.popen.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    for login in leaving:
        assert (await writer.client.post("/logout", headers=login.headers)).status_code == 204
    acknowledged = time.monotonic()
    await asyncio.sleep(max(acknowledged + WITHIN, stopped + 3) - time.monotonic())
    # they are there when it goes on: the very first that it does
    waiting = [asyncio.create_task(instance.status(login.headers)) for login in leaving for instance in paused]
    await asyncio.sleep(0.1)
    polls = [Poll(instance, login.headers) for login in leaving[:3] for instance in paused]
    assert not any(task.done() for task in waiting)
    for instance in paused:
        os.kill(instance.process.popen.pid, signal.SIGCONT)
    assert set(await asyncio.gather(*waiting)) <= {401, 503}
    for poll in polls:
        seen = await poll.end()
        assert {one.status for one in seen} <= {401, 503}
    assert await statuses(paused, staying) == [200] * 3
    assert await statuses(paused, leaving[0]) == [401] * 3


async def test_who_is_revoked_while_waiting_is_told_nothing(
    commands: httpx.AsyncClient, queries: httpx.AsyncClient, owner: Owner
) -> None:
    """Prefer: wait keeps a request for long: what held when it came must hold when it goes."""
    user = await register(commands, "ada@example.com", "operator")
    staying, leaving = await log_in(commands), await log_in(commands)
    asks = {"Min-Position": "1", "Prefer": "wait=25"}
    paths = [f"/users/{user}", "/users/me", "/users"]
    waiting = [
        asyncio.create_task(queries.get(path, headers={**login.headers, **asks}))
        for login in (staying, leaving)
        for path in paths
    ]
    # they have been admitted when one that came after them is
    assert (await queries.get("/users", headers=leaving.headers)).status_code == 200
    assert (await commands.post("/logout", headers=leaving.headers)).status_code == 204

    async def refused() -> bool:
        return (await queries.get("/users", headers=leaving.headers)).status_code == 401

    await aeventually(refused, what="the revocation is known", timeout=5)
    assert not any(task.done() for task in waiting)
    owner.execute(
        "INSERT INTO read_model.users (id, email, email_canonical, display_name, status, roles, attributes, created_at,"
        " updated_at, version, position)"
        " VALUES (%s, 'ada@example.com', 'ada@example.com', NULL, 'active', '{}', '{}', now(), now(), 1, 1)",
        (user,),
    )
    owner.execute(
        "INSERT INTO read_model.progress (partition, next_offset, position) SELECT n, 1, 1 FROM generate_series(0, 2) n"
    )
    answers = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in answers] == [200, 200, 200, 401, 401, 401]
    for answer in answers[3:]:
        assert codes(answer, 401) == ["invalid_token"]
        assert "ada@example.com" not in answer.text
