"""All events in order, as CloudEvents, in pages."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from events import archive
from events.envelope import Origin, history_envelope
from events.keyring import Kek, Keyring
from events.reader import AT
from events.recording import event_of
from identity.roles import Scope
from tests.calls import codes, create
from tests.histories import History
from tests.tokens import ADMIN_ID, KEK, authorized

Owner = psycopg.Connection[dict[str, Any]]


async def feed(queries: httpx.AsyncClient, **parameters: object) -> httpx.Response:
    answer = await queries.get("/events", params=parameters)  # pyright: ignore[reportArgumentType]
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/cloudevents-batch+json"
    return answer


ORIGIN = Origin(source="/muster/users", schemas="http://127.0.0.1:8002/schemas")


def positions(answer: httpx.Response) -> list[int]:
    return [int(event["sequence"]) for event in answer.json()]


async def test_an_event_is_what_kafka_has(queries: httpx.AsyncClient, history: History) -> None:
    history.create([1])
    (event,) = (await feed(queries)).json()
    row = history.owner.execute(AT, (1,)).fetchall()[0]
    envelope = history_envelope(event_of(row, Keyring(Kek(KEK))), ORIGIN)
    headers = {name.removeprefix("ce_"): value.decode() for name, value in envelope.headers}
    headers["datacontenttype"] = headers.pop("content-type")
    data = event.pop("data")
    assert event == headers
    assert data["user"]["email"] == "user00001@example.com"
    assert data["changes"]["email"] == {"old": None, "new": "user00001@example.com"}


@pytest.mark.parametrize("limit", [1, 4, 10, 1000])
async def test_pages_have_every_event_once_in_order(queries: httpx.AsyncClient, history: History, limit: int) -> None:
    history.create(range(6))
    history.change(range(4), display_name="Changed")
    answer = await feed(queries, limit=limit)
    found = positions(answer)
    while "next" in answer.links:
        answer = await queries.get(answer.links["next"]["url"])
        found += positions(answer)
    assert found == list(range(1, 11))
    assert answer.headers["event-position"] == "10"
    # whoever goes on with that gets what comes, and nothing twice
    assert positions(await feed(queries, after=10)) == []
    history.change([5], display_name="Changed")
    assert positions(await feed(queries, after=10)) == [11]
    assert positions(await feed(queries, after="head")) == []


async def test_filters(queries: httpx.AsyncClient, commands: httpx.AsyncClient, history: History) -> None:
    history.create(range(3))
    history.change([1], display_name="Changed")
    history.delete([2])
    headers = {"X-Correlation-Id": "case-17"}
    answer = await commands.post("/users", json={"email": "ada@example.com"}, headers=headers)
    ada = answer.json()["id"]
    assert positions(await feed(queries, types="UserUpdated, UserDeleted")) == [4, 5]
    assert positions(await feed(queries, user=str(history.users[1].id))) == [2, 4]
    assert positions(await feed(queries, user=str(history.users[1].id), after=2)) == [4]
    assert positions(await feed(queries, actor="development")) == [1, 2, 3, 4, 5]
    assert positions(await feed(queries, actor=str(ADMIN_ID))) == [6]
    assert positions(await feed(queries, correlation="case-17")) == [6]
    assert positions(await feed(queries, user=ada, types="UserDeleted")) == []


async def test_times_bound_it_both_included(queries: httpx.AsyncClient, history: History, owner: Owner) -> None:
    for number in range(4):
        history.create([number])
    rows = owner.execute("SELECT recorded_at FROM log.events ORDER BY position").fetchall()
    times: list[datetime] = [row["recorded_at"] for row in rows]
    since, until = times[1].isoformat(), times[2].isoformat()
    assert positions(await feed(queries, since=since)) == [2, 3, 4]
    assert positions(await feed(queries, since=since, until=until)) == [2, 3]
    assert positions(await feed(queries, until=(times[1] - timedelta(microseconds=1)).isoformat())) == [1]
    page = await feed(queries, since=since, until=until, limit=1)
    assert positions(await queries.get(page.links["next"]["url"])) == [3]


async def test_rare_events_are_found_by_pages_that_examine_so_many(
    queries: httpx.AsyncClient, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "EXAMINED", 4)
    history.create(range(9))
    history.delete([0])
    answer = await feed(queries, types="UserDeleted")
    assert (positions(answer), answer.headers["event-position"]) == ([], "4")
    while "next" in answer.links:
        answer = await queries.get(answer.links["next"]["url"])
    assert positions(answer) == [10]


async def test_what_cannot_be_opened_is_told_without_data(queries: httpx.AsyncClient, history: History) -> None:
    history.create(range(2))
    history.damage(0, 1)
    first, second = (await feed(queries)).json()
    assert "data" not in first
    assert "does not open" in first["unreadable"]
    assert (first["sequence"], first["subject"]) == ("0000000000000000001", str(history.users[0].id))
    assert second["data"]["user"]["display_name"] == "User 1"


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"types": "UserCreated,UserPromoted"}, "no_such_type"),
        ({"limit": "1001"}, "less_than_equal"),
        ({"since": "2999-01-01T00:00:00Z"}, "in_the_future"),
        ({"sort": "newest"}, "extra_forbidden"),
    ],
)
async def test_what_is_no_question_is_refused(
    queries: httpx.AsyncClient, parameters: dict[str, str], code: str
) -> None:
    assert codes(await queries.get("/events", params=parameters), 422) == [code]


async def test_only_auditors_read_it(queries: httpx.AsyncClient, commands: httpx.AsyncClient) -> None:
    await create(commands)
    headers = authorized(scopes=frozenset({Scope.USERS_READ, Scope.OPS}))
    assert codes(await queries.get("/events", headers=headers), 403) == ["insufficient_scope"]
