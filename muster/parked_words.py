"""What is parked, in words."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from projector.parked import Parked, record_of_topic, waiting_events
from runtime.database import Connection

MOST_SHOWN = 50


def name_of(one: Parked) -> str:
    if one.user_id is None:
        return f"{one.id} (record of the topic, partition {one.partition}, offset {one.topic_offset})"
    return f"user {one.user_id} (the {one.held_back_from})" if one.id is None else f"{one.id} (user {one.user_id})"


def line_of(one: Parked) -> str:
    since = _text(one.parked_at)
    if one.user_id is None:
        where = f"partition {one.partition}, offset {one.topic_offset}"
        return f"{one.id:>6}  {since}  a record of the topic, {where}: holds nobody back: {one.reason}"
    return (
        f"{one.id or '':>6}  {since}  user {one.user_id} is held back from the {one.held_back_from} from version"
        f" {one.version} (position {one.position}) on, {one.waiting} events: {one.reason}"
    )


async def told(connection: Connection, one: Parked) -> dict[str, Any]:
    """All about one of them, as JSON: with the events that wait, and what the topic held."""
    about: dict[str, Any] = {name: _plain(value) for name, value in asdict(one).items() if value is not None}
    if one.user_id is not None and one.version is not None:
        about["events"] = [
            {name: _plain(value) for name, value in event.items()}
            for event in await waiting_events(connection, one.user_id, one.version, MOST_SHOWN)
        ]
    if one.source == "topic" and one.id is not None:
        about["record"] = await record_of_topic(connection, one.id)
    return about


def lines_of(about: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    lines = [f"{name}: {value}" for name, value in about.items() if name not in {"events", "record"}]
    if "events" in about:
        lines.append("events:")
        lines += ["  " + "  ".join(f"{name} {value}" for name, value in event.items()) for event in about["events"]]
    if "record" in about:
        lines.append("record:")
        lines += [f"  {name}: {value}" for name, value in about["record"].items()]
    return lines


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return _text(value)
    return value if isinstance(value, int) else str(value)


def _text(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
