"""Records of the events topic, opened: what can be applied, and what is to be parked."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from events.envelope import NotOurEvent, Opened, open_envelope, place_in
from events.recording import Position
from events.topics import Record
from projector.parking import Park, park_record, user_in
from projector.rows import NoRow, Row, row_of

# about a millisecond
AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedBatch:
    """`rows` are those of `events`; of a user who is parked they have nothing from there on.

    `newest` is the last place in the log that a record names, whether or not that record can be applied.
    """

    events: Sequence[Opened]
    rows: Sequence[Row]
    parks: Sequence[Park]
    newest: tuple[Position, UUID] | None


async def opened(records: Sequence[Record]) -> OpenedBatch:
    """Open records of one partition, in order; other tasks have their turn meanwhile."""
    events: list[Opened] = []
    rows: list[Row] = []
    parks: list[Park] = []
    held: set[str] = set()
    newest: tuple[Position, UUID] | None = None
    for number, record in enumerate(records, 1):
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
        try:
            event, row = _open(record)
        except (NotOurEvent, NoRow) as error:
            newest = place_in(record.headers) or newest
            parks.append(park_record(record, str(error)))
            if (user_id := user_in((record.key or b"").decode(errors="replace"))) is not None:
                held.add(user_id)
            continue
        newest = event.position, event.event_id
        events.append(event)
        if row["id"] not in held:
            rows.append(row)
    return OpenedBatch(events=events, rows=rows, parks=parks, newest=newest)


def _open(record: Record) -> tuple[Opened, Row]:
    event = open_envelope(record.headers, record.value)
    row = row_of(event.user, event.position)
    if str(row["id"]).encode() != record.key:
        raise NotOurEvent("its key is not the id of the user that it is about")
    return event, row
