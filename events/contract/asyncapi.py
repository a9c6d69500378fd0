"""The topics as an AsyncAPI 3.0 document: which records they carry, with which headers, and what keeps them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from events.contract.bodies import EXAMPLES, version_of
from events.contract.schemas import published, written
from events.envelope import SEQUENCE_DIGITS, SNAPSHOT, schema_file, wire_type
from events.wire import TYPES
from runtime.broker_settings import BrokerSettings

EVENTS: Final[str] = BrokerSettings.model_fields["events_topic"].default
SNAPSHOTS: Final[str] = BrokerSettings.model_fields["snapshot_topic"].default
EXAMPLE_SCHEMAS: Final = "https://users.example.com/schemas"
# CloudEvents Kafka protocol binding 1.0.2, binary content mode
HEADERS: Final[Mapping[str, tuple[str, str]]] = {
    "content-type": ("application/json", "of the value"),
    "ce_specversion": ("1.0", "of CloudEvents"),
    "ce_id": (
        "0192d3c9-17aa-7d02-8f3e-5b8f1b1c9a77",
        "of the event: the same on both topics, whenever it is sent",
    ),
    "ce_type": ("", "what happened, and the version of the schema"),
    "ce_source": ("/muster/users", "which deployment it is from"),
    "ce_subject": ("0192d3c8-5b0e-7c31-9d5e-0a3f6f6f2b11", "the user's id; also the record's key"),
    "ce_time": ("2026-03-02T10:30:00.004211Z", "when it was recorded (RFC 3339, UTC, microseconds)"),
    "ce_dataschema": ("", "where the JSON Schema of the value is served"),
    "ce_sequence": (
        f"{4711:0{SEQUENCE_DIGITS}}",
        f"the position in the log, with zeros up to {SEQUENCE_DIGITS} digits: text order is the order of the log",
    ),
    "ce_userversion": ("2", "the user's version after the event: 1, 2, 3 ... without a gap"),
    "ce_correlationid": ("0192d3c9-17a8-7c11-a2de-90c8f3d6be02", "the same for all that one request led to"),
    "ce_causationid": ("0192d3c9-17a8-7c11-a2de-90c8f3d6be02", "the request or event that led to it"),
    "ce_traceparent": (
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "W3C trace context, if any",
    ),
}
OPTIONAL: Final = frozenset({"ce_traceparent"})

HISTORY_TEXT: Final = (
    "Every change of every user, each with the whole record after it. At least once; a user's events are in one"
    " partition, in the order of their versions; there is no order between partitions. Kept for TOPIC_RETENTION_HOURS"
    " (7 days): what is older is in the log, at GET /events."
)
SNAPSHOT_TEXT: Final = (
    "The current record of every user, for whoever begins: read it to its end, then the events. Compacted: the last"
    " record of a key is kept, and a deleted user's is a tombstone (null)."
)


def document(*, events_topic: str = EVENTS, snapshot_topic: str = SNAPSHOTS) -> dict[str, Any]:
    """The document; its references are relative to where it is served, beside the schemas."""
    bodies = published()
    events = [(name, number) for name in TYPES for number in sorted(bodies.get(name, [version_of(name)]))]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Muster: users",
            "version": "1.0.0",
            "description": "What Muster publishes about users. A tolerant reader passes over fields, headers and types"
            " that it does not know: versions of a type differ in optional fields alone.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": _channel(
                events_topic,
                "Events",
                HISTORY_TEXT,
                [f"{name}.v{number}" for name, number in events],
                {"cleanup.policy": ["delete"]},
            ),
            "snapshot": _channel(
                snapshot_topic, "Snapshot", SNAPSHOT_TEXT, [SNAPSHOT, "Tombstone"], {"cleanup.policy": ["compact"]}
            ),
        },
        "operations": {
            "publishEvents": _operation("events", "Publish every change of every user"),
            "publishSnapshot": _operation("snapshot", "Publish the current record of every user"),
        },
        "components": {"messages": _messages(events)},
    }


def written_document() -> bytes:
    return written(document())


def _channel(
    address: str, title: str, description: str, messages: list[str], configuration: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "address": address,
        "title": title,
        "description": description,
        "messages": {name.replace(".", "_"): {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"kafka": {"topic": address, "topicConfiguration": dict(configuration), "bindingVersion": "0.5.0"}},
    }


def _operation(channel: str, summary: str) -> dict[str, Any]:
    return {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _messages(events: Sequence[tuple[str, int]]) -> dict[str, Any]:
    kinds = [wire_type(name, number) for name, number in events]
    found = {
        f"{name}.v{number}": _message(kind, name, number, [kind])
        for (name, number), kind in zip(events, kinds, strict=True)
    }
    found[SNAPSHOT] = _message(SNAPSHOT, SNAPSHOT, version_of(SNAPSHOT), kinds)
    found["Tombstone"] = {
        "name": "Tombstone",
        "title": "Tombstone",
        "summary": "The user was deleted or erased: the value is null, the headers are those of the last event.",
        "headers": _headers([wire_type("UserDeleted", version_of("UserDeleted"))], SNAPSHOT, version_of(SNAPSHOT)),
        "payload": {"type": "null"},
        "bindings": _KEYED,
    }
    return found


def _message(name: str, body: str, number: int, kinds: list[str]) -> dict[str, Any]:
    headers = _headers(kinds, body, number)
    message: dict[str, Any] = {
        "name": name,
        "title": f"{body}, version {number}",
        "contentType": "application/json",
        "correlationId": {"location": "$message.header#/ce_correlationid"},
        "headers": headers,
        "payload": {"$ref": f"./{schema_file(body, number)}"},
        "bindings": _KEYED,
    }
    if number == version_of(body):
        told = {key: one["examples"][0] for key, one in headers["properties"].items()}
        message["examples"] = [{"name": body, "headers": told, "payload": EXAMPLES[body]}]
    return message


_KEYED: Final = {
    "kafka": {
        "key": {"type": "string", "format": "uuid", "description": "the user's id"},
        "bindingVersion": "0.5.0",
    }
}


def _headers(kinds: list[str], body: str, number: int) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, (example, description) in HEADERS.items():
        told = {"ce_type": kinds[0], "ce_dataschema": f"{EXAMPLE_SCHEMAS}/{schema_file(body, number)}"}
        properties[name] = {"type": "string", "description": description, "examples": [told.get(name, example)]}
    properties["ce_type"]["enum"] = kinds
    return {"type": "object", "properties": properties, "required": [name for name in HEADERS if name not in OPTIONAL]}
