"""An erased user as the query API tells of them: the shape of what happened, and nothing personal."""

from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from identity.roles import Scope
from tests.calls import Record, codes, create
from tests.people import ADA_ID
from tests.tokens import ADMIN_ID, authorized

Owner = psycopg.Connection[dict[str, Any]]

GONE = {"old": None, "new": None, "erased": True}
WORDS = (b"zuleika", b"lovelace", b"looms", b"engines")


@pytest.fixture
async def ada(commands: httpx.AsyncClient) -> Record:
    """Created, changed, and erased."""
    ada = await create(commands, "zuleika@lovelace.example", display_name="Zuleika", attributes={"team": "looms"})
    path = f"/users/{ada['id']}"
    body = {"attributes": {"team": "engines"}, "roles": ["auditor"]}
    assert (await commands.patch(path, json=body, headers={"Reason": "moved"})).status_code == 200
    assert (await commands.post(f"{path}/erase", headers={"Reason": "case 17"})).status_code == 202
    return ada


def impersonal(answer: httpx.Response) -> httpx.Response:
    assert not [word for word in WORDS if word in answer.content.lower()]
    return answer


async def test_the_user_is_gone(queries: httpx.AsyncClient, ada: Record) -> None:
    assert codes(await queries.get(f"/users/{ada['id']}"), 410) == ["user_deleted"]
    assert (await queries.get("/users")).json()["users"] == []


async def test_the_history_keeps_its_shape(queries: httpx.AsyncClient, ada: Record) -> None:
    events = impersonal(await queries.get(f"/users/{ada['id']}/history")).json()["events"]
    assert [(event["type"], event["erased"], event["unreadable"]) for event in events] == [
        ("UserCreated", True, None),
        ("UserUpdated", True, None),
        ("UserDeleted", True, None),
    ]
    assert [event["reason"] for event in events] == [None, "moved", "case 17"]
    assert all(event["actor"]["subject"] == str(ADMIN_ID) and event["recorded_at"] for event in events)
    assert events[0]["changes"]["email"] == GONE
    assert events[1]["changes"] == {"attributes": GONE, "roles": {"old": ["user"], "new": ["auditor"]}}
    assert list(events[2]["changes"]) == ["deleted_at"]


async def test_others_histories_say_that_they_are_not_erased(
    commands: httpx.AsyncClient, queries: httpx.AsyncClient
) -> None:
    user = await create(commands)
    (event,) = (await queries.get(f"/users/{user['id']}/history")).json()["events"]
    assert event["erased"] is False
    assert event["changes"]["email"] == {"old": None, "new": "ada@example.com"}


async def test_a_former_state_is_told_without_what_was_personal(queries: httpx.AsyncClient, ada: Record) -> None:
    for moment in ({"version": 2}, {"at_position": 2}):
        answer = impersonal(await queries.get(f"/users/{ada['id']}", params=moment))
        record = answer.json()
        assert answer.status_code == 200
        assert (record["email"], record["display_name"], record["attributes"]) == (None, None, None)
        assert (record["roles"], record["version"], record["erased"]) == (["auditor"], 2, True)
    assert codes(await queries.get(f"/users/{ada['id']}", params={"version": 3}), 410) == ["user_deleted"]


async def test_a_list_of_then_has_them_unless_they_are_looked_for(queries: httpx.AsyncClient, ada: Record) -> None:
    for wanted, found in (
        ({}, 1),
        ({"role": "auditor"}, 1),
        ({"q": "zuleika"}, 0),
        ({"email": "zuleika@lovelace.example"}, 0),
    ):
        answer = impersonal(await queries.get("/users", params={"at_position": "2", **wanted}))
        assert "unreadable-users" not in answer.headers
        assert [user["id"] for user in answer.json()["users"]] == [ada["id"]] * found
        assert all(user["erased"] and user["email"] is None for user in answer.json()["users"])


async def test_a_diff_tells_what_it_can(queries: httpx.AsyncClient, ada: Record) -> None:
    path = f"/users/{ada['id']}/diff"
    for first, last in ((1, 2), (2, 1)):
        found = impersonal(await queries.get(path, params={"from": first, "to": last})).json()
        assert found["erased"]
        assert found["changes"].keys() == {"roles", "email", "display_name", "attributes"}
        assert found["changes"]["email"] == GONE
    gone = (await queries.get(path, params={"from": 1, "to": 0})).json()
    assert gone["changes"]["email"] == GONE
    assert (await queries.get(path, params={"from": 2, "to": 2})).json()["changes"] == {}


async def test_the_feed_has_their_events(queries: httpx.AsyncClient, ada: Record) -> None:
    events = impersonal(await queries.get("/events")).json()
    assert [event["type"] for event in events] == [
        "muster.UserCreated.v1",
        "muster.UserUpdated.v1",
        "muster.UserDeleted.v1",
    ]
    assert all(event["data"]["user"]["erased"] and event["data"]["user"]["email"] is None for event in events)
    assert events[1]["data"]["changes"]["attributes"] == GONE
    assert {event["subject"] for event in events} == {ada["id"]}


async def test_a_key_that_went_without_a_tombstone_is_damage(
    commands: httpx.AsyncClient, queries: httpx.AsyncClient, owner: Owner
) -> None:
    user = await create(commands)
    owner.execute("DELETE FROM log.user_keys")
    (event,) = (await queries.get(f"/users/{user['id']}/history")).json()["events"]
    assert (event["erased"], event["changes"]) == (False, None)
    assert "data key is not there" in event["unreadable"]


async def test_the_receipt_says_what_was_done(queries: httpx.AsyncClient, ada: Record) -> None:
    answer = impersonal(await queries.get(f"/users/{ada['id']}/erasure"))
    assert answer.status_code == 200
    receipt = answer.json()
    assert (receipt["reason"], receipt["actor"]["subject"], receipt["position"]) == ("case 17", str(ADMIN_ID), 3)
    assert receipt["steps"][2]["removed"]["log.user_keys"] == 1
    assert {one["set_by"].split(" ")[0].rstrip(",") for one in receipt["horizon"]} == {
        "TOPIC_RETENTION_HOURS",
        "SNAPSHOT_COMPACTION_HOURS",
        "BACKUP_RETENTION_DAYS",
        "a",
    }


async def test_there_is_no_receipt_of_what_nobody_asked_for(
    commands: httpx.AsyncClient, queries: httpx.AsyncClient, ada: Record
) -> None:
    user = await create(commands)
    assert codes(await queries.get(f"/users/{user['id']}/erasure"), 404) == ["no_erasure"]
    assert codes(await queries.get(f"/users/{UUID(int=5)}/erasure"), 404) == ["no_erasure"]
    headers = authorized(scopes=frozenset({Scope.USERS_READ}))
    answer = await queries.get(f"/users/{ada['id']}/erasure", headers=headers)
    assert codes(answer, 403) == ["insufficient_scope"]


async def test_there_is_nothing_to_export(queries: httpx.AsyncClient, ada: Record) -> None:
    assert codes(await queries.get(f"/users/{ada['id']}/export"), 410) == ["user_erased"]
    assert codes(await queries.get(f"/users/{ADA_ID}/export"), 404) == ["user_not_found"]
