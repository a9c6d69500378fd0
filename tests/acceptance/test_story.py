"""The main job through HTTP alone, and what it leaves on the topics."""

from datetime import datetime

import httpx
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat

from tests.databases import MakeSettings
from tests.processes import Stack, StartProcess
from tests.topics import TopicRecord, records_of
from tests.waiting import eventually

pytestmark = pytest.mark.broker

HEADERS = {
    "content-type",
    "ce_specversion",
    "ce_id",
    "ce_type",
    "ce_source",
    "ce_subject",
    "ce_time",
    "ce_dataschema",
    "ce_sequence",
    "ce_userversion",
    "ce_correlationid",
    "ce_causationid",
    "ce_traceparent",
}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def fresh(answer: httpx.Response) -> dict[str, str]:
    return {"Min-Position": answer.headers["event-position"], "Prefer": "wait=10"}


def test_a_user_is_created_read_back_changed_and_deleted(stack: Stack, make_settings: MakeSettings) -> None:
    with stack.command.client() as commands, stack.query.client() as queries:
        created = commands.post(
            "/users",
            json={"email": "Ada@Example.com", "attributes": {"team": "engines"}, "password": "correct horse"},
            headers={"X-Correlation-Id": "story-1", "traceparent": TRACEPARENT},
        )
        assert created.status_code == 201
        assert created.headers["etag"] == '"1"'
        assert created.headers["x-correlation-id"] == "story-1"
        place = created.headers["location"]

        read = queries.get(place, headers=fresh(created))
        assert read.status_code == 200
        assert read.headers["etag"] == '"1"'
        assert read.json() == {name: value for name, value in created.json().items() if name != "changed"}
        assert queries.get(place, headers={"If-None-Match": '"1"'}).status_code == 304

        changed = commands.patch(
            place, json={"display_name": "Ada"}, headers={"If-Match": '"1"', "traceparent": TRACEPARENT}
        )
        assert changed.status_code == 200
        assert changed.json()["email"] == "Ada@Example.com"
        assert changed.json()["changed"] == ["display_name"]
        assert queries.get(place, headers=fresh(changed)).json()["display_name"] == "Ada"

        stale = commands.put(place, json={"status": "disabled"}, headers={"If-Match": '"1"'})
        assert stale.status_code == 412
        taken = commands.post("/users", json={"email": "ada@example.com"})
        assert taken.status_code == 409
        assert taken.json()["errors"] == [
            {"detail": "Email already registered", "code": "email_taken", "pointer": "#/email"}
        ]

        deleted = commands.delete(place, headers={"traceparent": TRACEPARENT})
        assert deleted.status_code == 200
        assert deleted.json()["message"] == "User deleted successfully"
        assert queries.get(place, headers=fresh(deleted)).status_code == 410
        assert queries.get("/users", headers=fresh(deleted)).json() == {"users": [], "next_cursor": None}

    settings = make_settings(broker=True)
    user_id = created.json()["id"]
    history = records_of(settings, settings.events_topic)
    assert [record.headers["ce_type"] for record in history] == [
        "muster.UserCreated.v1",
        "muster.UserUpdated.v1",
        "muster.UserDeleted.v1",
    ]
    assert [record.position for record in history] == [1, 2, 3]
    assert {record.key for record in history} == {user_id}
    assert all(set(record.headers) == HEADERS for record in history)
    assert [record.headers["ce_userversion"] for record in history] == ["1", "2", "3"]
    assert history[0].headers["ce_correlationid"] == "story-1"
    assert history[0].headers["ce_traceparent"] == TRACEPARENT
    assert history[1].value is not None
    assert history[1].value["changes"] == {"display_name": {"old": None, "new": "Ada"}}
    assert history[1].value["user"]["email"] == "Ada@Example.com"
    assert all(is_cloud_event(record) for record in history)
    assert "correct horse" not in str(history)
    assert "argon2" not in str(history)

    snapshot = records_of(settings, settings.snapshot_topic)
    assert snapshot[-1].value is None
    assert [record.key for record in snapshot] == [user_id] * 3


def is_cloud_event(record: TopicRecord) -> bool:
    """As the CloudEvents SDK reads it."""
    headers = {name: value.encode() for name, value in record.headers.items()}
    event = from_binary(KafkaMessage(headers=headers, key=record.key, value=b"{}"), JSONFormat())
    assert isinstance(event.get_time(), datetime)
    return event.get_subject() == record.key


def test_both_apis_serve_their_docs_without_the_internet(stack: Stack) -> None:
    for process in (stack.command, stack.query):
        with process.client() as client:
            assert "/static-offline-docs/swagger-ui-bundle.js" in client.get("/docs").text
            assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
            assert client.get("/metrics").text.count("muster_http_requests_total") > 0


def test_a_correlation_id_goes_from_the_request_to_the_projectors_log(stack: Stack) -> None:
    with stack.command.client() as commands, stack.query.client() as queries:
        created = commands.post("/users", json={"email": "ada@example.com"}, headers={"X-Correlation-Id": "follow-me"})
        assert queries.get(created.headers["location"], headers=fresh(created)).status_code == 200
    assert '"follow-me"' in stack.command.log.read_text()
    eventually(lambda: "follow-me" in stack.projector.log.read_text(), what="the projector's log line")


def test_several_projectors_share_the_partitions(stack: Stack, start_process: StartProcess) -> None:
    start_process("projector").wait_until_ready()
    with stack.command.client() as commands, stack.query.client() as queries:
        for number in range(20):
            created = commands.post("/users", json={"email": f"user{number}@example.com"})
            assert queries.get("/users", headers=fresh(created)).status_code == 200
        assert len(queries.get("/users", params={"limit": 200}).json()["users"]) == 20
