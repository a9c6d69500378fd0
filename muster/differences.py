"""A finding as an operator reads it, and as a program does; of what is personal, only that it differs."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from events.histories import Entry
from projector.findings import Deviation, Finding

LONGEST: Final = 200


def line_of(finding: Finding) -> str:
    user = f" user {finding.user_id}:" if finding.user_id is not None else ""
    told = [f"{finding.place}:{user} {finding.problem}", *map(_deviation, finding.deviations)]
    line = "; ".join(told)
    return line if finding.entry is None else f"{line}; explained by {_event(finding.entry)}"


def document_of(finding: Finding) -> dict[str, Any]:
    document: dict[str, Any] = {"place": finding.place, "problem": finding.problem}
    if finding.user_id is not None:
        document["user_id"] = str(finding.user_id)
    if finding.deviations:
        document["differing"] = {
            one.name: "personal" if one.personal else {"log": one.log, "found": one.found} for one in finding.deviations
        }
    if (entry := finding.entry) is not None:
        document["event"] = {
            "position": entry.position,
            "type": entry.type_name,
            "version": entry.version,
            "event_id": str(entry.event_id),
            "recorded_at": entry.recorded_at.isoformat(),
            "actor": entry.metadata.get("actor"),
            "request_id": entry.metadata.get("request_id"),
            "correlation_id": entry.metadata.get("correlation_id"),
        }
    return document


def _deviation(one: Deviation) -> str:
    if one.personal:
        return f"{one.name} differs"
    return f"{one.name} is {_value(one.found)} and should be {_value(one.log)}"


def _value(value: object) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _event(entry: Entry) -> str:
    actor: Mapping[str, Any] = entry.metadata.get("actor") or {}
    return (
        f"position {entry.position}: {entry.type_name}, version {entry.version},"
        f" recorded {entry.recorded_at.isoformat()} by {actor.get('kind')} {actor.get('subject')},"
        f" request {entry.metadata.get('request_id')}, correlation {entry.metadata.get('correlation_id')}"
    )
