"""Events of the log in the JSON format of CloudEvents 1.0, as the Kafka topic has them in its headers."""

from typing import Any, Final

from events.envelope import SEQUENCE_DIGITS, Origin, cloud_event
from events.histories import Entry
from events.record import EXAMPLE as RECORD_EXAMPLE
from events.wire import time_to_wire

EXAMPLE: Final[dict[str, Any]] = {
    "specversion": "1.0",
    "id": "0192d3c9-17aa-7d02-8f3e-5b8f1b1c9a77",
    "type": "muster.UserUpdated.v1",
    "source": "/muster/users",
    "subject": RECORD_EXAMPLE["id"],
    "time": "2026-03-02T10:30:00.004211Z",
    "dataschema": "https://users.example.com/schemas/UserUpdated.v1.json",
    "sequence": "0000000000000004711",
    "userversion": "2",
    "correlationid": "0192d3c9-17a8-7c11-a2de-90c8f3d6be02",
    "causationid": "0192d3c9-17a8-7c11-a2de-90c8f3d6be02",
    "datacontenttype": "application/json",
    "data": {
        "user": {**RECORD_EXAMPLE, "deleted_at": None},
        "changes": {"attributes": {"old": {"team": "looms"}, "new": {"team": "engines"}}},
    },
}


def cloud_event_of(entry: Entry, origin: Origin) -> dict[str, Any]:
    """One that cannot be read has no data, and says why in the extension attribute `unreadable`."""
    if entry.recorded is not None:
        return cloud_event(entry.recorded, origin)
    return {
        "specversion": "1.0",
        "id": str(entry.event_id),
        "type": f"muster.{entry.type_name}",
        "source": origin.source,
        "subject": str(entry.user_id),
        "time": time_to_wire(entry.recorded_at),
        "sequence": f"{entry.position:0{SEQUENCE_DIGITS}}",
        "userversion": str(entry.version),
        "unreadable": entry.reason,
    }
