"""What cannot be applied is set aside with its user's later events: everybody else's flow on."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from prometheus_client import Counter

from events.reader import LoggedRecord, Unreadable
from events.topics import Record
from projector.rows import Row
from runtime.logs import logger

PARKED = Counter("muster_projector_parked_total", "Events and records that were set aside", ["source"])

MOST_KEPT: Final = 64 * 1024

# as read_model.park takes it
Park = Mapping[str, Any]

log = logger(__name__)


def park_logged(found: LoggedRecord | Unreadable, reason: str, partition: int) -> Park:
    """Of an event of the log that cannot be opened, or that no row can be made of."""
    return {
        "user_id": str(found.user_id),
        "source": "log",
        "partition": partition,
        "version": found.version,
        "position": found.position,
        "event_id": str(found.event_id),
        "reason": reason,
    }


def park_row(row: Row, reason: str, partition: int) -> Park:
    """Of a row that the table does not take: the fault is the event's, wherever it was read."""
    return {
        "user_id": row["id"],
        "source": "log",
        "partition": partition,
        "version": row["version"],
        "position": row["position"],
        "reason": reason,
    }


def park_record(record: Record, reason: str) -> Park:
    """Of a record of the topic that is none of ours, or a damaged one; its key says whose it is."""
    key = (record.key or b"")[:MOST_KEPT].decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    park: dict[str, Any] = {
        "source": "topic",
        "partition": record.partition,
        "topic_offset": record.offset,
        "record_key": key,
        "record_headers": [[name, base64.b64encode(value).decode()] for name, value in record.headers],
        "record_value": None if record.value is None else "\\x" + record.value[:MOST_KEPT].hex(),
        "reason": reason,
    }
    if (user_id := user_in(key)) is not None:
        park["user_id"] = user_id
    return park


def tell(parks: Sequence[Park]) -> None:
    """Count what was set aside and log it."""
    for park in parks:
        PARKED.labels(park["source"]).inc()
        kept = {name: park[name] for name in ("user_id", "version", "position", "topic_offset") if name in park}
        log.error("parked", source=park["source"], partition=park["partition"], reason=park["reason"], **kept)


def user_in(key: str) -> str | None:
    """The user that a record's key names, as their id is written; None for anything else."""
    try:
        return key if str(UUID(key)) == key else None
    except ValueError:
        return None
