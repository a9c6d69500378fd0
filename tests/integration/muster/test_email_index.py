"""`muster keys rotate-email-index`: at each step everybody logs in, and no address is two users'."""

import asyncio
import signal
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from command_api.app import create_app
from events.email import canonical_email
from events.keyring import Keyring, open_keyring
from events.reader import COLUMNS
from events.recording import event_of
from events.user import UserDeleted
from tests.apps import client_of
from tests.calls import codes, create
from tests.databases import MakeSettings
from tests.integration.muster.conftest import Muster, Told
from tests.logins import log_in
from tests.processes import StartProcess
from tests.rotations import NEW_INDEX, NEW_INDEX_KEY, index_keys, meanwhile, variables
from tests.tokens import EMAIL_INDEX_KEY
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]

PASSWORD = "sesame-opens-the-rock"
BEFORE, AWARE = index_keys(EMAIL_INDEX_KEY), index_keys(EMAIL_INDEX_KEY, NEW_INDEX_KEY)
SWITCHED, AFTER = index_keys(NEW_INDEX_KEY, EMAIL_INDEX_KEY), index_keys(NEW_INDEX_KEY)
ROTATING = variables(AWARE)
# what a table is to whoever uses it
SHAPE = """
SELECT a.attname AS name, a.attnotnull AS required, format_type(a.atttypid, a.atttypmod) AS type,
    col_description(a.attrelid, a.attnum) AS comment
FROM pg_attribute a WHERE a.attrelid = 'log.email_claims'::regclass AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attname
"""
INDEXES = "SELECT indexname AS name, indexdef AS made FROM pg_indexes WHERE tablename = 'email_claims' ORDER BY 1"


def claims(owner: Owner) -> dict[bytes, bytes | None]:
    rows = owner.execute("SELECT email_key, email_key_next FROM log.email_claims").fetchall()
    return {row["email_key"]: row["email_key_next"] for row in rows}


def result(told: Told) -> dict[str, Any]:
    assert told.status == 0, told.stderr
    return told.result


@pytest.fixture
def as_owner(database_url: str) -> dict[str, str | None]:
    return {**ROTATING, "DATABASE_URL": database_url}


async def test_at_each_step_everybody_logs_in_and_every_address_is_one_users(
    muster: Muster, make_settings: MakeSettings, owner: Owner, as_owner: dict[str, str | None]
) -> None:
    shape = [owner.execute(query.encode()).fetchall() for query in (SHAPE, INDEXES)]
    people: list[str] = []

    async def all_is_well(*known: dict[str, Any]) -> None:
        """With processes that know these keys: each makes a user, all know all users."""
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client_of(create_app(make_settings(**keys)))) for keys in known]
            for client in clients:
                people.append(f"user{len(people)}@example.com")
                await create(client, people[-1], password=PASSWORD)
            for client in clients:
                for email in people:
                    assert (await log_in(client, email.upper(), PASSWORD)).status_code == 200, email
                    assert codes(await client.post("/users", json={"email": email}), 409) == ["email_taken"]

    await all_is_well(BEFORE)
    await all_is_well(BEFORE, AWARE)
    assert set(claims(owner).values()) == {None}
    assert result(await muster("keys", "rotate-email-index", "--json", **ROTATING))["claims"] == 3
    await all_is_well(BEFORE, AWARE)
    checked = await muster("keys", "rotate-email-index", "--json", "--check", **ROTATING)
    assert (checked.status, checked.result["lacking"]) == (1, 1)
    refused = await muster("keys", "rotate-email-index", "--json", "--finish", **as_owner)
    assert (refused.status, "some process does not know" in refused.stderr) == (1, True)

    assert result(await muster("keys", "rotate-email-index", "--json", **ROTATING))["claims"] == 1
    await all_is_well(AWARE)
    assert (await muster("keys", "rotate-email-index", "--json", "--check", **ROTATING)).status == 0
    finished = await muster("keys", "rotate-email-index", "--json", "--finish", **as_owner)
    assert finished.status == 0, finished.stderr
    assert claims(owner) == dict.fromkeys(map(NEW_INDEX.email_key, people))
    assert (await muster("keys", "rotate-email-index", **ROTATING)).refusal[0] == 1
    assert [owner.execute(query.encode()).fetchall() for query in (SHAPE, INDEXES)] == shape

    await all_is_well(AWARE)
    await all_is_well(AWARE, SWITCHED)
    await all_is_well(SWITCHED, AFTER)
    await all_is_well(AFTER)
    done = (await muster("operations", "--operation", "keys", "--json")).result["operations"]
    assert [one["outcome"] for one in done] == ["done", "done", "done"]


async def test_a_process_that_does_not_know_the_key_takes_no_address_and_lets_nobody_in(
    muster: Muster, make_settings: MakeSettings, as_owner: dict[str, str | None], start_process: StartProcess
) -> None:
    async with client_of(create_app(make_settings(**BEFORE))) as forgotten:
        user = await create(forgotten, password=PASSWORD)
        result(await muster("keys", "rotate-email-index", "--json", **ROTATING))
        result(await muster("keys", "rotate-email-index", "--json", "--finish", **as_owner))
        assert codes(await forgotten.post("/users", json={"email": "ada@example.com"}), 503) == ["unavailable"]
        assert (await log_in(forgotten, password=PASSWORD)).status_code == 503
        # what needs no address goes on
        path = f"/users/{user['id']}"
        assert (await forgotten.patch(path, json={"display_name": "Ada"})).status_code == 200
        assert (await forgotten.patch(path, json={"email": "ada@example.org"})).status_code == 503
    process = start_process("command_api", broker=False, **BEFORE)
    assert process.wait_until_dead() == 2
    assert f"made with {NEW_INDEX.id}: set EMAIL_INDEX_KEY" in process.log.read_text()


async def test_no_mix_of_processes_gives_one_address_to_two_users(
    muster: Muster, make_settings: MakeSettings, owner: Owner, as_owner: dict[str, str | None]
) -> None:
    """Four processes fight for a few addresses, by creations, changes and deletions, while the key changes."""
    settings = [make_settings(**keys) for keys in (AWARE, SWITCHED, AWARE, BEFORE)]
    async with AsyncExitStack() as stack:
        *aware, forgotten = [await stack.enter_async_context(client_of(create_app(one))) for one in settings]
        # the index is made with the key of whoever writes the first claim: the former one
        await create(forgotten, "first@example.com")
        outcomes, refused = Counter[int](), Counter[int]()
        resting = asyncio.Event()

        async def fight(number: int, client: httpx.AsyncClient, enough: asyncio.Event) -> None:
            mine: str | None = None
            turn = number
            while not enough.is_set():
                if client is forgotten and resting.is_set():
                    await asyncio.sleep(0.02)
                    continue
                turn += 1
                status, mine = await blow(client, mine, turn)
                (refused if client is forgotten else outcomes)[status] += 1

        async def all_fight(enough: asyncio.Event) -> None:
            async with asyncio.TaskGroup() as group:
                for number, client in enumerate([*aware, *aware, forgotten]):
                    group.create_task(fight(number, client, enough))

        async with meanwhile(all_fight):
            # the process that knows the old key alone leaves claims behind
            for command in ((), ("--finish",)):
                told = await muster("keys", "rotate-email-index", "--json", *command, **as_owner)
                assert told.status in {0, 1}, told.stderr
            assert_one_user_an_address(owner, open_keyring(settings[0]))
            resting.set()
            while owner.execute("SELECT 1 FROM log.email_index WHERE changed_at IS NULL").fetchall():
                result(await muster("keys", "rotate-email-index", "--json", **ROTATING))
                result(await muster("keys", "rotate-email-index", "--json", "--finish", **as_owner))
            resting.clear()

            async def kept_out() -> bool:
                return refused[503] > 3

            await aeventually(kept_out, what="the process that does not know the key is refused")
    assert set(outcomes) == {200, 201, 409}
    assert min(outcomes.values()) > 5
    assert_one_user_an_address(owner, open_keyring(settings[0]))
    assert_claims_are_of_their_addresses(owner, open_keyring(settings[0]))


async def blow(client: httpx.AsyncClient, mine: str | None, turn: int) -> tuple[int, str | None]:
    """Take one of five addresses, or give up the user who has one; gives the answer and whom one has then."""
    email = f"prize{turn * 7 % 5}@example.com"
    if mine is None:
        answer = await client.post("/users", json={"email": email})
        return answer.status_code, answer.json()["id"] if answer.status_code == 201 else None
    if turn % 3:
        return (await client.patch(f"/users/{mine}", json={"email": email})).status_code, mine
    answer = await client.delete(f"/users/{mine}")
    return answer.status_code, None if answer.is_success else mine


def living(owner: Owner, keyring: Keyring) -> dict[UUID, str]:
    """The canonical address of everybody who lives, by the log alone."""
    rows = owner.execute(
        f"SELECT DISTINCT ON (e.user_id) {COLUMNS} FROM log.events e ORDER BY e.user_id, e.version DESC".encode()
    ).fetchall()
    events = [event_of(row, keyring).event for row in rows]
    return {event.user.id: canonical_email(event.user.email) for event in events if not isinstance(event, UserDeleted)}


def assert_one_user_an_address(owner: Owner, keyring: Keyring) -> None:
    taken = Counter(living(owner, keyring).values())
    assert [address for address, users in taken.items() if users > 1] == []


def assert_claims_are_of_their_addresses(owner: Owner, keyring: Keyring) -> None:
    rows = owner.execute("SELECT user_id, email_key, email_key_next FROM log.email_claims").fetchall()
    people = living(owner, keyring)
    assert {row["user_id"]: (row["email_key"], row["email_key_next"]) for row in rows} == {
        user: (NEW_INDEX.email_key(address), None) for user, address in people.items()
    }


@pytest.mark.parametrize("point", ["keys.index_prepared", "keys.swapped"])
async def test_a_run_that_is_killed_is_gone_on_with(
    point: str, muster: Muster, commands: httpx.AsyncClient, owner: Owner, as_owner: dict[str, str | None]
) -> None:
    for number in range(600):
        await create(commands, f"user{number}@example.com")
    killed = await muster("keys", "rotate-email-index", "--json", FAILPOINTS="keys.claims_filled=kill", **ROTATING)
    assert killed.status == -signal.SIGKILL
    assert Counter(key is None for key in claims(owner).values()) == {False: 500, True: 100}
    assert result(await muster("keys", "rotate-email-index", "--json", **ROTATING))["claims"] == 100

    before = claims(owner)
    killed = await muster("keys", "rotate-email-index", "--json", "--finish", FAILPOINTS=f"{point}=kill", **as_owner)
    assert killed.status == -signal.SIGKILL
    assert claims(owner) == before
    assert (await muster("keys", "rotate-email-index", "--json", "--finish", **as_owner)).status == 0
    assert set(claims(owner)) == set(before.values())


async def test_a_change_can_be_abandoned(
    muster: Muster, commands: httpx.AsyncClient, owner: Owner, as_owner: dict[str, str | None]
) -> None:
    await create(commands)
    before = claims(owner)
    result(await muster("keys", "rotate-email-index", "--json", **ROTATING))
    assert claims(owner) != before
    assert (await muster("keys", "rotate-email-index", "--json", "--abandon", **ROTATING)).status == 0
    assert claims(owner) == before
    told = await muster("keys", "rotate-email-index", "--finish", **as_owner)
    assert told.refusal == (1, "muster: no change is under way: `muster keys rotate-email-index` begins one")


async def test_what_cannot_be_is_refused(muster: Muster, commands: httpx.AsyncClient, owner: Owner) -> None:
    assert (await muster("keys", "rotate-email-index", **ROTATING)).refusal[0] == 1
    await create(commands)
    for wrong, what in ((variables(BEFORE), "EMAIL_INDEX_KEYS_KNOWN"), (variables(AFTER), "set EMAIL_INDEX_KEY")):
        status, said = (await muster("keys", "rotate-email-index", **wrong)).refusal
        assert (status, what in said) == (2, True), said
    result(await muster("keys", "rotate-email-index", "--json", **ROTATING))
    status, said = (await muster("keys", "rotate-email-index", "--finish", **ROTATING)).refusal
    assert (status, "owner" in said) == (2, True), said
    owner.execute("UPDATE log.events SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1)")
    owner.execute("UPDATE log.email_claims SET email_key_next = NULL")
    told = await muster("keys", "rotate-email-index", "--json", **ROTATING)
    assert (told.status, "of 1 users the address cannot be read" in told.stderr) == (1, True)


async def test_what_was_answered_before_the_change_is_answered_alike_after_it(
    muster: Muster, make_settings: MakeSettings, as_owner: dict[str, str | None]
) -> None:
    body, key = {"email": "ada@example.com"}, {"Idempotency-Key": "k"}
    changed = {"display_name": "Ada"}
    async with client_of(create_app(make_settings(**BEFORE))) as commands:
        first = await commands.post("/users", json=body, headers=key)
        path = f"/users/{first.json()['id']}"
        patched = await commands.patch(path, json=changed, headers={"Idempotency-Key": "p"})
        gone, stays = await create(commands, "gone@example.com"), await create(commands, "stays@example.com")
        erased = await commands.post(f"/users/{gone['id']}/erase", headers={"Idempotency-Key": "e"})
        assert erased.status_code == 202
    result(await muster("keys", "rotate-email-index", "--json", **ROTATING))
    result(await muster("keys", "rotate-email-index", "--json", "--finish", **as_owner))
    for keys in (AWARE, SWITCHED):
        async with client_of(create_app(make_settings(**keys))) as commands:
            again = await commands.post("/users", json=body, headers=key)
            assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
            assert again.json() == first.json()
            again = await commands.patch(path, json=changed, headers={"Idempotency-Key": "p"})
            assert (again.headers["idempotency-replayed"], again.json()) == ("true", patched.json())
            again = await commands.post(f"/users/{gone['id']}/erase", headers={"Idempotency-Key": "e"})
            assert again.json()["requested_at"] == erased.json()["requested_at"]
            other = await commands.post(f"/users/{stays['id']}/erase", headers={"Idempotency-Key": "e"})
            assert codes(other, 422) == ["idempotency_key_reused"]
            other = await commands.post("/users", json={"email": "bob@example.com"}, headers=key)
            assert codes(other, 422) == ["idempotency_key_reused"]
            other = await commands.patch(path, json={"display_name": "Bob"}, headers={"Idempotency-Key": "p"})
            assert codes(other, 422) == ["idempotency_key_reused"]
