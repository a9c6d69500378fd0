"""POST /users/{id}/erase: what is gone at once, what stays, and what is refused from then on."""

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import orjson
import psycopg
import pytest
from psycopg import errors

from command_api.app import create_app
from identity.roles import Scope
from tests.apps import client_of
from tests.calls import Record, codes, create
from tests.databases import MakeSettings
from tests.logins import log_in
from tests.people import ADA_ID
from tests.tokens import ADMIN_ID, authorized
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]

PASSWORD = "correct horse battery"
# all rows of all tables but those that say nothing of anybody
ROWS = """
SELECT c.oid::regclass::text AS name FROM pg_class c
WHERE c.relkind = 'r' AND c.relnamespace::regnamespace::text IN ('log', 'identity', 'read_model') ORDER BY 1
"""


async def erase(commands: httpx.AsyncClient, user_id: str, **headers: str) -> httpx.Response:
    return await commands.post(f"/users/{user_id}/erase", headers=headers)


def rows(owner: Owner, table: str) -> list[Record]:
    return owner.execute(f"SELECT * FROM {table}".encode()).fetchall()


async def test_it_is_recorded_and_goes_on_by_itself(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands)
    answer = await erase(commands, user["id"], Reason="case 17")
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/users/{user['id']}/erasure"
    assert answer.headers["event-position"] == "2"
    receipt = answer.json()
    assert (receipt["user_id"], receipt["state"], receipt["completed_at"]) == (user["id"], "under way", None)
    assert (receipt["actor"]["subject"], receipt["reason"]) == (str(ADMIN_ID), "case 17")
    done = {step["step"]: step["done_at"] is not None for step in receipt["steps"]}
    # no relay runs here, and what processes remember takes its time
    assert done == {"requested": True, "deleted": True, "erased": True, "buried": False, "forgotten": False}
    event = owner.execute("SELECT type, metadata FROM log.events WHERE version = 2").fetchall()[0]
    assert (event["type"], event["metadata"]["reason"]) == ("UserDeleted", "case 17")
    assert event["metadata"]["actor"]["subject"] == str(ADMIN_ID)


async def test_nothing_of_the_person_is_left_but_the_sealed_events(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands, "ada@example.com", password=PASSWORD, display_name="Ada")
    await commands.patch(f"/users/{user['id']}", json={"display_name": "A"}, headers={"Idempotency-Key": "k"})
    assert (await log_in(commands, "ada@example.com", PASSWORD)).status_code == 200
    assert (await log_in(commands, "ada@example.com", "wrong")).status_code == 401
    owner.execute(
        "INSERT INTO read_model.users (id, email, email_canonical, display_name, status, roles, attributes, created_at,"
        " updated_at, version, position) VALUES (%s, 'ada@example.com', 'ada@example.com', 'Ada', 'active', '{}', '{}',"
        " now(), now(), 1, 1)",
        (user["id"],),
    )
    owner.execute(
        "INSERT INTO read_model.parked (user_id, version, source, partition, record_key, record_value, reason)"
        " VALUES (%(id)s::uuid, 2, 'topic', 0, %(id)s, 'ada@example.com', 'planted'),"
        " (NULL, NULL, 'topic', 1, %(id)s, 'ada@example.com', 'planted')",
        {"id": user["id"]},
    )
    answer = await erase(commands, user["id"])
    assert answer.json()["steps"][2]["removed"] == {
        # claim and password went with the deletion
        "identity.credentials": 0,
        "identity.guesses": 1,
        "identity.sessions": 1,
        "log.commands": 1,
        "log.email_claims": 0,
        "log.parked": 0,
        "log.user_keys": 1,
        "read_model.parked": 2,
        "read_model.users": 1,
        "read_model.users_next": 0,
    }
    (row,) = rows(owner, "read_model.users")
    assert (row["email"], row["display_name"], row["attributes"], row["version"]) == (None, None, None, 3)
    assert row["deleted_at"] is not None
    (key,) = rows(owner, "log.user_keys")
    assert (key["wrapped"], key["erased_at"] is not None) == (None, True)
    for table in owner.execute(ROWS).fetchall():
        for found in rows(owner, table["name"]):
            assert b"ada@example.com" not in orjson.dumps(found, default=repr).lower(), table
    for table in ("log.email_claims", "log.commands", "identity.credentials", "identity.sessions", "read_model.parked"):
        assert rows(owner, table) == [], table


async def test_the_same_again_tells_how_far_it_is(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands)
    first = (await erase(commands, user["id"], Reason="first")).json()
    again = (await erase(commands, user["id"], Reason="second")).json()
    assert again == first
    assert len(rows(owner, "log.events")) == 2
    owner.execute(
        "UPDATE log.erasures SET buried_at = now(), erased_at = now() - interval '11 s', completed_at = now()"
    )
    done = await erase(commands, user["id"])
    assert (done.status_code, done.json()["state"]) == (200, "done")
    assert all(step["done_at"] for step in done.json()["steps"])
    assert done.json()["nothing_after"] == max(one["until"] for one in done.json()["horizon"])


async def test_a_key_makes_a_retry_harmless_and_names_one_request(commands: httpx.AsyncClient) -> None:
    first, second = await create(commands), await create(commands, "grace@example.com")
    answer = await erase(commands, first["id"], **{"Idempotency-Key": "k"})
    assert answer.status_code == 202
    assert (await erase(commands, first["id"], **{"Idempotency-Key": "k"})).json() == answer.json()
    other = await erase(commands, second["id"], **{"Idempotency-Key": "k"})
    assert codes(other, 422) == ["idempotency_key_reused"]
    body = {"email": "mary@example.com"}
    other = await commands.post("/users", json=body, headers={"Idempotency-Key": "k"})
    assert codes(other, 422) == ["idempotency_key_reused"]
    assert (await commands.patch(f"/users/{second['id']}", json={"display_name": "G"})).status_code == 200


async def test_a_user_who_was_deleted_before_is_erased_too(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands)
    await commands.delete(f"/users/{user['id']}", headers={"Reason": "left"})
    answer = await erase(commands, user["id"], Reason="asked for it")
    assert (answer.status_code, answer.headers["event-position"]) == (202, "2")
    assert len(rows(owner, "log.events")) == 2
    assert rows(owner, "log.user_keys")[0]["wrapped"] is None


async def test_nobody_writes_an_erased_user(commands: httpx.AsyncClient, owner: Owner) -> None:
    path = f"/users/{(await create(commands))['id']}"
    await commands.post(f"{path}/erase")
    for answer in (
        await commands.patch(path, json={"display_name": "Ada"}),
        await commands.patch(path, json={"display_name": "Ada"}, headers={"Idempotency-Key": "k", "If-Match": '"2"'}),
        await commands.put(path, json={"password": PASSWORD}),
        await commands.delete(path),
    ):
        assert codes(answer, 410) == ["user_deleted"]
    assert len(rows(owner, "log.events")) == 2


async def test_from_the_request_on_only_the_erasure_changes_the_user(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands)
    path = f"/users/{user['id']}"
    owner.execute("SELECT log.request_erasure(%s, '{}', NULL, NULL, NULL, NULL, NULL, 0)", (user["id"],))
    owner.execute("UPDATE log.erasures SET metadata = (SELECT metadata FROM log.events)")
    refused = [
        await commands.patch(path, json={"display_name": "Ada"}),
        await commands.patch(path, json={"display_name": "Ada"}, headers={"Idempotency-Key": "k"}),
        await commands.delete(path),
    ]
    assert [codes(answer, 410) for answer in refused] == [["user_deleted"]] * 3
    # and the loop, which nobody asked, carries it on

    async def erased() -> bool:
        return rows(owner, "log.user_keys")[0]["wrapped"] is None

    await aeventually(erased, what="the loop erases")


async def test_a_key_is_never_made_again(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands)
    await erase(commands, user["id"])
    batch = orjson.dumps(
        [
            {
                "user_id": user["id"],
                "expected": 2,
                "wrapped": "\\x00",
                "kek_id": "k",
                "type": "UserCreated",
                "schema": 1,
                "event_id": str(UUID(int=1)),
                "data": {},
                "sealed": "\\x00",
                "metadata": {},
            }
        ]
    ).decode()
    assert owner.execute("SELECT verdict FROM log.append(%s::json)", (batch,)).fetchall() == [{"verdict": "erased"}]
    with pytest.raises(errors.UniqueViolation):
        owner.execute("INSERT INTO log.user_keys (user_id, wrapped, kek_id) VALUES (%s, '', '')", (user["id"],))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE log.events SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1) WHERE version = 2",
        "DELETE FROM log.user_keys",
    ],
    ids=["an altered seal", "a lost key"],
)
async def test_a_user_whose_record_cannot_be_read_is_erased_too(
    commands: httpx.AsyncClient, queries: httpx.AsyncClient, owner: Owner, damage: str
) -> None:
    user = await create(commands, password=PASSWORD)
    path = f"/users/{user['id']}"
    assert (await commands.patch(path, json={"display_name": "Ada"})).status_code == 200
    owner.execute(damage.encode())
    answer = await commands.post(f"{path}/erase")
    assert answer.status_code == 202
    assert answer.json()["steps"][2]["done_at"] is not None
    events = (await queries.get(f"{path}/history")).json()["events"]
    assert [(event["type"], event["erased"]) for event in events] == [
        ("UserCreated", True),
        ("UserUpdated", True),
        ("UserDeleted", True),
    ]
    assert rows(owner, "log.email_claims") == []
    assert rows(owner, "identity.credentials") == []
    assert codes(await commands.patch(path, json={"display_name": "Ada"}), 410) == ["user_deleted"]


async def test_an_unknown_user_is_not_found(commands: httpx.AsyncClient, owner: Owner) -> None:
    assert codes(await erase(commands, str(ADA_ID)), 404) == ["user_not_found"]
    assert rows(owner, "log.erasures") == []
    assert (await erase(commands, "ada")).status_code == 422


async def test_whoever_may_do_less_erases_nobody_who_may_do_more(commands: httpx.AsyncClient, owner: Owner) -> None:
    boss, user = await create(commands, roles=["admin"]), await create(commands, "grace@example.com")
    eraser = authorized(scopes=frozenset({Scope.USERS_ERASE}))
    assert codes(await commands.post(f"/users/{boss['id']}/erase", headers=eraser), 403) == ["outranked"]
    assert rows(owner, "log.erasures") == []
    assert (await commands.post(f"/users/{user['id']}/erase", headers=eraser)).status_code == 202
    writer = authorized(scopes=frozenset({Scope.USERS_WRITE}))
    assert codes(await commands.post(f"/users/{user['id']}/erase", headers=writer), 403) == ["insufficient_scope"]


async def test_the_address_is_free_and_the_password_is_none(commands: httpx.AsyncClient) -> None:
    user = await create(commands, "ada@example.com", password=PASSWORD)
    await erase(commands, user["id"])
    assert (await log_in(commands, "ada@example.com", PASSWORD)).status_code == 401
    second = await create(commands, "ada@example.com", password=PASSWORD)
    assert second["id"] != user["id"]
    assert (await log_in(commands, "ada@example.com", PASSWORD)).status_code == 200


async def test_a_creations_answer_is_not_given_again(commands: httpx.AsyncClient) -> None:
    body, key = {"email": "ada@example.com"}, {"Idempotency-Key": "k"}
    first = await commands.post("/users", json=body, headers=key)
    await erase(commands, first.json()["id"])
    again = await commands.post("/users", json=body, headers=key)
    assert "idempotency-replayed" not in again.headers
    assert again.json()["id"] != first.json()["id"]


async def test_updates_and_logins_that_come_with_it_leave_nothing(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands, "ada@example.com", password=PASSWORD)
    path = f"/users/{user['id']}"

    async def rename(number: int) -> int:
        return (await commands.patch(path, json={"display_name": f"Ada {number}"})).status_code

    async def enter() -> int:
        return (await log_in(commands, "ada@example.com", PASSWORD)).status_code

    others = [asyncio.create_task(rename(number)) for number in range(20)]
    others += [asyncio.create_task(enter()) for _ in range(20)]
    # in the midst of them
    await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
    answer = await erase(commands, user["id"])
    assert answer.status_code == 202
    assert set(await asyncio.gather(*others)) <= {200, 401, 410, 429}
    events = owner.execute("SELECT type FROM log.events ORDER BY version").fetchall()
    assert [event["type"] for event in events].index("UserDeleted") == len(events) - 1
    assert rows(owner, "identity.sessions") == []
    assert rows(owner, "identity.credentials") == []
    assert rows(owner, "log.user_keys")[0]["wrapped"] is None


async def test_all_who_ask_at_once_get_one_erasure(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands)
    answers = await asyncio.gather(*(erase(commands, user["id"]) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["requested_at"] for answer in answers}) == 1
    assert len(rows(owner, "log.events")) == 2


async def test_the_deleted_are_erased_by_themselves_when_their_time_is_over(
    make_settings: MakeSettings, owner: Owner
) -> None:
    async with client_of(create_app(make_settings(erase_deleted_after=0))) as commands:
        gone, stays = await create(commands), await create(commands, "grace@example.com")
        await commands.delete(f"/users/{gone['id']}", headers={"Reason": "left"})
    async with client_of(create_app(make_settings(erase_deleted_after=86_400))) as commands:
        await create(commands, "mary@example.com")
        assert rows(owner, "log.erasures") == []
    async with client_of(create_app(make_settings(erase_deleted_after=1))):

        async def erased() -> bool:
            keys = {str(row["user_id"]): row["wrapped"] for row in rows(owner, "log.user_keys")}
            return keys[gone["id"]] is None and keys[stays["id"]] is not None

        await aeventually(erased, what="who is due is erased")
    (found,) = rows(owner, "log.erasures")
    assert found["metadata"]["actor"] == {"subject": "muster", "kind": "service"}
    assert found["metadata"]["reason"] == "deleted 1 s ago (ERASE_DELETED_AFTER)"
    (event,) = owner.execute("SELECT metadata FROM log.events WHERE type = 'UserDeleted'").fetchall()
    assert event["metadata"]["reason"] == "left"
    assert isinstance(found["erased_at"], datetime)


async def test_who_holds_the_key_back_delays_the_erasure_alone(commands: httpx.AsyncClient, owner: Owner) -> None:
    """What cannot be done now is answered as recorded, and done later; everybody else is served."""
    user = await create(commands)
    with owner.transaction():
        owner.execute("LOCK TABLE read_model.users IN SHARE MODE")
        answer = await erase(commands, user["id"])
        assert answer.status_code == 202
        assert answer.json()["steps"][2]["done_at"] is None
        assert (await create(commands, "grace@example.com"))["version"] == 1

    async def erased() -> bool:
        return len([key for key in rows(owner, "log.user_keys") if key["wrapped"] is None]) == 1

    await aeventually(erased, what="the erasure goes on")


@pytest.mark.parametrize("role", ["muster_command", "muster_query", "muster_projector"])
async def test_no_role_undoes_an_erasure(commands: httpx.AsyncClient, make_settings: MakeSettings, role: str) -> None:
    user = await create(commands)
    await erase(commands, user["id"])
    url = make_settings(role).database_url.get_secret_value()
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (
            "UPDATE log.user_keys SET wrapped = '', erased_at = NULL",
            "DELETE FROM log.user_keys",
            "UPDATE log.erasures SET erased_at = NULL",
            "DELETE FROM log.erasures",
            "TRUNCATE log.erasures",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement)
