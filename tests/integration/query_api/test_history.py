"""Who changed what of a user, when and why; and the difference of two of their states."""

from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from identity.roles import Scope
from tests.calls import Record, codes, create
from tests.histories import History
from tests.people import NOON
from tests.tokens import ADMIN_ID, authorized

Owner = psycopg.Connection[dict[str, Any]]


@pytest.fixture
async def ada(commands: httpx.AsyncClient) -> Record:
    """Created, changed twice and deleted."""
    ada = await create(commands, display_name="Ada", attributes={"team": "looms"})
    path = f"/users/{ada['id']}"
    for headers, body in (
        ({"Reason": "moved to another team"}, {"attributes": {"team": "engines"}}),
        ({"X-Correlation-Id": "case-17"}, {"display_name": "Ada Lovelace", "email": "lovelace@example.com"}),
    ):
        assert (await commands.patch(path, json=body, headers=headers)).status_code == 200
    assert (await commands.delete(path, headers={"Reason": "left"})).status_code == 200
    return ada


async def events_of(queries: httpx.AsyncClient, user: str, **parameters: object) -> Record:
    answer = await queries.get(f"/users/{user}/history", params=parameters)  # pyright: ignore[reportArgumentType]
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_every_event_tells_who_did_what_and_why(queries: httpx.AsyncClient, ada: Record) -> None:
    events = (await events_of(queries, ada["id"]))["events"]
    assert [(event["version"], event["position"], event["type"]) for event in events] == [
        (1, 1, "UserCreated"),
        (2, 2, "UserUpdated"),
        (3, 3, "UserUpdated"),
        (4, 4, "UserDeleted"),
    ]
    assert [event["reason"] for event in events] == [None, "moved to another team", None, "left"]
    assert events[0]["changes"]["email"] == {"old": None, "new": "ada@example.com"}
    assert events[1]["changes"] == {"attributes": {"old": {"team": "looms"}, "new": {"team": "engines"}}}
    assert events[2]["changes"] == {
        "display_name": {"old": "Ada", "new": "Ada Lovelace"},
        "email": {"old": "ada@example.com", "new": "lovelace@example.com"},
    }
    assert list(events[3]["changes"]) == ["deleted_at"]
    assert events[2]["correlation_id"] == "case-17"
    assert all(event["request_id"] and event["causation_id"] and event["recorded_at"] for event in events)


async def test_the_actor_is_a_subject_in_a_session(queries: httpx.AsyncClient, commands: httpx.AsyncClient) -> None:
    session = str(UUID(int=7))
    headers = authorized(sid=session)
    answer = await commands.post("/users", json={"email": "ada@example.com"}, headers=headers)
    (event,) = (await events_of(queries, answer.json()["id"]))["events"]
    assert event["actor"] == {"subject": str(ADMIN_ID), "kind": "user", "session": session}


async def test_events_from_before_sessions_were_kept_are_read(queries: httpx.AsyncClient, history: History) -> None:
    history.create([1])
    (event,) = (await events_of(queries, str(history.users[1].id)))["events"]
    assert event["actor"] == {"subject": "development", "kind": "operator"}


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
async def test_pages_have_every_event_once(queries: httpx.AsyncClient, ada: Record, order: str, limit: int) -> None:
    path: str | None = f"/users/{ada['id']}/history?order={order}&limit={limit}"
    versions: list[int] = []
    while path is not None:
        answer = await queries.get(path)
        page = answer.json()
        versions += [event["version"] for event in page["events"]]
        assert len(page["events"]) <= limit
        path = answer.links["next"]["url"] if "next" in answer.links else None
        assert (path is None) == (page["next_cursor"] is None)
    assert versions == sorted([1, 2, 3, 4], reverse=order == "newest")


async def test_who_may_only_read_users_reads_no_history(queries: httpx.AsyncClient, ada: Record) -> None:
    headers = authorized(scopes=frozenset({Scope.USERS_READ}))
    for path in ("history", "diff?from=1&to=2"):
        answer = await queries.get(f"/users/{ada['id']}/{path}", headers=headers)
        assert codes(answer, 403) == ["insufficient_scope"]


async def test_an_unknown_user_and_a_cursor_of_elsewhere_are_told(queries: httpx.AsyncClient, ada: Record) -> None:
    assert codes(await queries.get(f"/users/{UUID(int=5)}/history"), 404) == ["user_not_found"]
    page = await events_of(queries, ada["id"], limit=1)
    for parameters in ({"cursor": "eyJ9"}, {"cursor": "é"}, {"cursor": page["next_cursor"], "order": "newest"}):
        answer = await queries.get(f"/users/{ada['id']}/history", params=parameters)
        assert codes(answer, 422) == ["bad_cursor"]


async def test_an_event_that_cannot_be_opened_says_so_and_the_others_are_told(
    queries: httpx.AsyncClient, history: History
) -> None:
    history.create([1])
    history.change([1], display_name="Secret Name")
    history.damage(1, 1)
    first, second = (await events_of(queries, str(history.users[1].id)))["events"]
    assert (first["version"], first["type"], first["changes"]) == (1, "UserCreated", None)
    assert "does not open" in first["unreadable"]
    assert second["changes"]["display_name"]["new"] == "Secret Name"
    answer = await queries.get(f"/users/{history.users[1].id}", params={"version": 1})
    assert codes(answer, 500) == ["event_unreadable"]


async def test_a_diff_tells_what_two_versions_differ_in(queries: httpx.AsyncClient, ada: Record) -> None:
    path = f"/users/{ada['id']}/diff"
    found = (await queries.get(path, params={"from": 1, "to": 3})).json()
    assert (found["from"]["version"], found["to"]["version"], found["to"]["position"]) == (1, 3, 3)
    assert found["changes"] == {
        "attributes": {"old": {"team": "looms"}, "new": {"team": "engines"}},
        "display_name": {"old": "Ada", "new": "Ada Lovelace"},
        "email": {"old": "ada@example.com", "new": "lovelace@example.com"},
    }
    back = (await queries.get(path, params={"from": 3, "to": 1})).json()
    assert {name: (change["new"], change["old"]) for name, change in back["changes"].items()} == {
        name: (change["old"], change["new"]) for name, change in found["changes"].items()
    }
    assert (await queries.get(path, params={"from": 2, "to": 2})).json()["changes"] == {}
    whole = (await queries.get(path, params={"from": 0, "to": 1})).json()
    assert (whole["from"], whole["changes"]["email"]) == (
        {"version": 0, "position": 0, "recorded_at": None},
        {"old": None, "new": "ada@example.com"},
    )
    gone = (await queries.get(path, params={"from": 1, "to": 0})).json()
    assert gone["changes"]["email"] == {"old": "ada@example.com", "new": None}


async def test_a_diff_takes_moments(queries: httpx.AsyncClient, ada: Record) -> None:
    path = f"/users/{ada['id']}/diff"
    events = (await events_of(queries, ada["id"]))["events"]
    found = (await queries.get(path, params={"from": NOON.isoformat(), "to": events[1]["recorded_at"]})).json()
    assert (found["from"]["version"], found["to"]["version"]) == (0, 2)


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({"from": "1", "to": "9"}, 404, "no_such_version"),
        ({"from": "-1", "to": "1"}, 404, "no_such_version"),
        ({"from": "1", "to": "2999-01-01T00:00:00Z"}, 422, "in_the_future"),
    ],
)
async def test_a_diff_of_what_is_not_there_is_refused(
    queries: httpx.AsyncClient, ada: Record, parameters: dict[str, str], status: int, code: str
) -> None:
    assert codes(await queries.get(f"/users/{ada['id']}/diff", params=parameters), status) == [code]


async def test_a_diff_of_nobody_is_refused(queries: httpx.AsyncClient) -> None:
    answer = await queries.get(f"/users/{UUID(int=5)}/diff", params={"from": 0, "to": NOON.isoformat()})
    assert codes(answer, 404) == ["user_not_found"]
    answer = await queries.get(f"/users/{UUID(int=5)}/diff", params={"from": "yesterday", "to": NOON.isoformat()})
    assert answer.status_code == 422
