"""`muster replay`: what is asked for, whether it may be, and what is told of it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
from aiokafka.errors import KafkaError
from psycopg.rows import dict_row

from events.broker_connection import trouble
from events.keyring import WrongKey, open_keyring
from events.reader import head_position
from events.recording import Position
from events.replay import Replay, Replayed, Selection, counted, name_of
from events.topics import ensure_topic, partition_numbers
from events.wire import TYPES
from muster.answers import Answer, Finding
from muster.failures import CannotRun, Refused
from muster.moments import position_told
from muster.progress import shown_progress
from muster.recorded import recorded
from runtime import failpoints
from runtime.database import Connection, Row
from runtime.settings import Settings

OPERATION: Final = "replay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """As the command line has it: `first` and `last` are positions or moments."""

    topic: str
    first: str | None
    last: str | None
    users: str | None
    types: str | None
    rate: float | None
    dry_run: bool
    force_live: bool

    @property
    def parameters(self) -> dict[str, Any]:
        """What makes it the same replay."""
        return {"topic": self.topic, "from": self.first, "until": self.last, "users": self.users, "types": self.types}


def replay_log(settings: Settings, asked: Asked, operator: str) -> Answer:
    """Raises Refused, CannotRun, BadKey and psycopg's errors."""
    if asked.topic == settings.snapshot_topic:
        raise Refused(
            f"{asked.topic} holds current records, no events: replay to a topic of its own", code="live_topic"
        )
    if asked.topic == settings.events_topic and not asked.force_live:
        raise Refused(
            f"{asked.topic} is the live topic: everybody who follows it would get these events again. Name another"
            " topic, or say --force-live",
            code="live_topic",
        )
    failpoints.arm(settings.failpoints)
    try:
        return asyncio.run(_replay_or_tell(settings, asked, operator))
    except WrongKey as error:
        raise CannotRun(str(error), code="wrong_key") from None


async def _replay_or_tell(settings: Settings, asked: Asked, operator: str) -> Answer:
    try:
        return await _replay(settings, asked, operator)
    except (KafkaError, OSError) as error:
        raise CannotRun(await trouble(settings, error)) from None


async def _replay(settings: Settings, asked: Asked, operator: str) -> Answer:
    keyring = open_keyring(settings)
    connection = await psycopg.AsyncConnection[Row].connect(
        settings.database_url.get_secret_value(),
        autocommit=True,
        row_factory=dict_row,
        application_name="muster replay",
    )
    async with connection:
        selection = await _selection(connection, asked)
        counts = await counted(connection, selection)
        total = sum(counts.values())
        if asked.dry_run:
            return _answer(
                {"events": total, "types": counts, "until": selection.until, "topic": asked.topic, "dry_run": True}
            )
        name = name_of(asked.parameters)
        await ensure_topic(settings, asked.topic)
        partitions = len(await partition_numbers(settings, asked.topic))
        replay = Replay(
            settings, keyring, connection, topic=asked.topic, partitions=partitions, name=name, rate=asked.rate
        )
        parameters = {**asked.parameters, "rate": asked.rate, "force_live": asked.force_live, "replay": name}
        async with recorded(settings, operator, OPERATION, parameters) as result:
            with shown_progress("replaying", total) as advanced:
                done = await replay.run(selection, advanced)
            result.update(_result(selection, done, name))
        return _answer({**result, "topic": asked.topic}, unreadable=done.unreadable)


def _result(selection: Selection, done: Replayed, name: str) -> dict[str, Any]:
    return {
        "replay": name,
        "sent": done.sent,
        "sent_before": done.before,
        "unreadable": done.unreadable,
        "until": selection.until,
    }


def _answer(result: Mapping[str, Any], *, unreadable: int = 0) -> Answer:
    words = ", ".join(f"{name}: {value}" for name, value in result.items())
    told = f"{unreadable} events cannot be read and were passed over"
    findings = [Finding(code="unreadable", detail=told)] if unreadable else []
    return Answer(result=result, words=[words], findings=findings)


async def _selection(connection: Connection, asked: Asked) -> Selection:
    head = await head_position(connection)
    first = await position_told(connection, asked.first, "--from", before=True) if asked.first else Position(0)
    last = await position_told(connection, asked.last, "--until", before=False) if asked.last else head
    return Selection(after=first, until=min(last, head), types=_types(asked.types), users=_users(asked.users))


def _types(told: str | None) -> list[str] | None:
    if told is None:
        return None
    types = [name.strip() for name in told.split(",")]
    if unknown := [name for name in types if name not in TYPES]:
        raise CannotRun(f"--types: there is no {', '.join(unknown)}; there are {', '.join(TYPES)}")
    return types


def _users(told: str | None) -> list[UUID] | None:
    """Ids with commas, or @FILE with one a line."""
    if told is None:
        return None
    try:
        text = Path(told[1:]).read_text().split() if told.startswith("@") else told.split(",")
        return [UUID(one.strip()) for one in text]
    except OSError as error:
        raise CannotRun(f"--users: {told[1:]}: {error.strerror}") from None
    except ValueError as error:
        raise CannotRun(f"--users takes ids with commas, or @FILE with one a line: {error}") from None
