from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import psycopg

from tests.calls import create
from tests.tokens import ADMIN_ID, authorized

Owner = psycopg.Connection[dict[str, Any]]


async def test_a_created_user_is_answered_whole(commands: httpx.AsyncClient) -> None:
    sent = {
        "email": " Ada@Example.com ",
        "display_name": "Ada Lovelace",
        "status": "disabled",
        "roles": ["user", "admin", "user"],
        "attributes": {"team": "engines", "tags": [1, 1.5, None, {"x": True}]},
        "password": "correct horse battery",
    }
    began = datetime.now(UTC)
    answer = await commands.post("/users", json=sent)
    record = answer.json()
    assert answer.status_code == 201
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["event-position"] == "1"
    assert answer.headers["location"] == f"/users/{record['id']}"
    assert answer.headers["content-type"] == "application/json"
    assert UUID(record["id"]).version == 7
    assert began <= datetime.fromisoformat(record["created_at"]) <= datetime.now(UTC)
    assert {name: record[name] for name in record.keys() - {"id", "created_at"}} == {
        "version": 1,
        "email": "Ada@Example.com",
        "display_name": "Ada Lovelace",
        "status": "disabled",
        "roles": ["admin", "user"],
        "attributes": sent["attributes"],
        "updated_at": record["created_at"],
        "password_changed_at": record["created_at"],
        "changed": [
            "attributes",
            "created_at",
            "display_name",
            "email",
            "password_changed_at",
            "roles",
            "status",
        ],
    }


async def test_an_email_is_all_that_a_user_needs(commands: httpx.AsyncClient) -> None:
    record = await create(commands, "ada@example.com")
    assert record["display_name"] is None
    assert record["status"] == "active"
    assert record["roles"] == ["user"]
    assert record["attributes"] == {}
    assert record["password_changed_at"] is None


async def test_names_are_kept_as_typed(commands: httpx.AsyncClient) -> None:
    names = ["X", "Ада", "عائشة", "👩\u200d🚀", "O'Brien; DROP TABLE", "A\u0301da", "x" * 200, " Ada "]
    for number, name in enumerate(names):
        user = await create(commands, f"user{number}@example.com", display_name=name)
        assert user["display_name"] == name


async def test_positions_count_up_without_a_gap(commands: httpx.AsyncClient, owner: Owner) -> None:
    positions = [
        int((await commands.post("/users", json={"email": f"user{n}@example.com"})).headers["event-position"])
        for n in range(5)
    ]
    assert positions == [1, 2, 3, 4, 5]
    stored = owner.execute("SELECT position, type, version FROM log.events ORDER BY position").fetchall()
    assert [row["position"] for row in stored] == positions
    assert {(row["type"], row["version"]) for row in stored} == {("UserCreated", 1)}


async def test_the_callers_ids_and_reason_are_kept_with_the_event(commands: httpx.AsyncClient, owner: Owner) -> None:
    session = str(UUID(int=7))
    sent = {
        **authorized(sid=session),
        "X-Request-Id": "request-7",
        "X-Correlation-Id": "correlation-7",
        "X-Causation-Id": "causation-7",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Reason": "Prüfung".encode().decode("latin-1"),
    }
    answer = await commands.post(
        "/users",
        json={"email": "ada@example.com"},
        headers=[(n.encode(), v.encode("latin-1")) for n, v in sent.items()],
    )
    assert answer.headers["x-request-id"] == "request-7"
    assert answer.headers["x-correlation-id"] == "correlation-7"
    assert owner.execute("SELECT metadata FROM log.events").fetchall() == [
        {
            "metadata": {
                "actor": {"subject": str(ADMIN_ID), "kind": "user", "session": session},
                "request_id": "request-7",
                "correlation_id": "correlation-7",
                "causation_id": "causation-7",
                "traceparent": sent["traceparent"],
                "reason": "Prüfung",
            }
        }
    ]


async def test_ids_that_are_not_printable_are_made_anew(commands: httpx.AsyncClient) -> None:
    answer = await commands.post("/users", json={"email": "ada@example.com"}, headers={"X-Request-Id": "a b"})
    assert UUID(answer.headers["x-request-id"])
    assert answer.headers["x-correlation-id"] == answer.headers["x-request-id"]
