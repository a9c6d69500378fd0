"""Events of the log sent once more, to another topic: in order, with the ids that they have always had."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

import orjson
from aiokafka import AIOKafkaProducer, TopicPartition

from events.broker_connection import connection_arguments
from events.envelope import Envelope, Origin, history_envelope, place_in
from events.keyring import Keyring, WrongKey
from events.partitioning import partition_of
from events.reader import CARRIED, COLUMNS
from events.recording import Position, event_of
from events.sealing import BrokenSeal
from events.topics import record_at, spans, topic_reader
from runtime.database import Connection
from runtime.failpoints import failpoint
from runtime.settings import Settings

# a record's header, which the live topic's have not: which replay it is of
HEADER: Final = "replay"
BATCH: Final = 500

SELECTED: Final = f"""
e.position > %(after)s AND e.position <= %(until)s AND {CARRIED}
    AND (%(types)s::text[] IS NULL OR e.type = ANY(%(types)s))
    AND (%(users)s::uuid[] IS NULL OR e.user_id = ANY(%(users)s))
"""
COUNT: Final = f"SELECT e.type, count(*) AS count FROM log.events e WHERE {SELECTED} GROUP BY e.type ORDER BY e.type"  # noqa: S608 - constants
NEXT: Final = f"""
SELECT {COLUMNS}, (SELECT k.kek_id FROM log.user_keys k WHERE k.user_id = e.user_id) AS kek_id
FROM log.events e WHERE {SELECTED} ORDER BY e.position LIMIT %(limit)s
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which events: after one position up to another, both told as they were asked for; None takes any."""

    after: Position
    until: Position
    types: Sequence[str] | None
    users: Sequence[UUID] | None

    def parameters(self, after: Position) -> dict[str, object]:
        return {
            "after": after,
            "until": self.until,
            "types": list(self.types) if self.types is not None else None,
            "users": list(self.users) if self.users is not None else None,
        }


@dataclass(slots=True, kw_only=True)
class Replayed:
    """`before` were in the topic already, of an earlier run; `unreadable` were passed over."""

    sent: int = 0
    before: int = 0
    unreadable: int = 0


def name_of(asked: Mapping[str, Any]) -> str:
    """The same for the same request: a run that is repeated goes on with what an earlier one has left."""
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


async def counted(connection: Connection, selection: Selection) -> dict[str, int]:
    """How many events a replay would send, by type."""
    cursor = await connection.execute(COUNT, selection.parameters(selection.after), prepare=False)
    return {row["type"]: row["count"] for row in await cursor.fetchall()}


class Replay:
    """Sends a selection to the partitions of one topic, each user's events in order. Raises KafkaError and WrongKey.

    Each partition's last record tells where an earlier run of the same name ended: what it sent is not sent again.
    """

    def __init__(
        self,
        settings: Settings,
        keyring: Keyring,
        connection: Connection,
        *,
        topic: str,
        partitions: int,
        name: str,
        rate: float | None,
    ) -> None:
        self._settings = settings
        self._origin = Origin.of(settings)
        self._keyring = keyring
        self._connection = connection
        self._topic = topic
        self._partitions = partitions
        self._name = name
        self._rate = rate

    async def run(self, selection: Selection, advanced: Callable[[int], None]) -> Replayed:
        """`advanced` is told how many of the selection are done by now."""
        held = await self._held()
        done = Replayed()
        producer = AIOKafkaProducer(**connection_arguments(self._settings), enable_idempotence=True, acks="all")
        await producer.start()
        began = asyncio.get_running_loop().time()
        try:
            position = selection.after
            limit = BATCH if self._rate is None else max(1, min(BATCH, int(self._rate)))
            while rows := await self._next(selection, position, limit):
                await self._send(producer, rows, held, done)
                position = Position(rows[-1]["position"])
                failpoint("replay.sent")
                advanced(done.sent + done.before + done.unreadable)
                if self._rate is not None:
                    ahead = done.sent / self._rate - (asyncio.get_running_loop().time() - began)
                    await asyncio.sleep(max(0.0, ahead))
        finally:
            await producer.stop()
        return done

    async def _held(self) -> dict[int, Position]:
        """By partition the last position that this replay has sent to it."""
        reader = topic_reader(self._settings)
        await reader.start()
        try:
            partitions = [TopicPartition(self._topic, number) for number in range(self._partitions)]
            reader.assign(partitions)
            held: dict[int, Position] = {}
            for partition, span in (await spans(reader, partitions)).items():
                record = await record_at(reader, partition, span.end - 1) if span.end > span.start else None
                if record is None or dict(record.headers).get(HEADER) != self._name.encode():
                    continue
                if (place := place_in(record.headers)) is not None:
                    held[partition.partition] = place[0]
        finally:
            await reader.stop()
        return held

    async def _next(self, selection: Selection, after: Position, limit: int) -> list[dict[str, Any]]:
        parameters = {**selection.parameters(after), "limit": limit}
        return await (await self._connection.execute(NEXT, parameters, prepare=False)).fetchall()

    async def _send(
        self,
        producer: AIOKafkaProducer,
        rows: Sequence[Mapping[str, Any]],
        held: Mapping[int, Position],
        done: Replayed,
    ) -> None:
        outgoing: dict[int, list[Envelope]] = {}
        for row in rows:
            number = partition_of(row["user_id"], self._partitions)
            if row["position"] <= held.get(number, 0):
                done.before += 1
                continue
            try:
                recorded = event_of(row, self._keyring)
            except BrokenSeal:
                done.unreadable += 1
                continue
            except WrongKey:
                # a key that this deployment never wrapped says nothing against the event: no event could be opened
                if not self._keyring.knows(row["kek_id"]):
                    raise
                done.unreadable += 1
                continue
            outgoing.setdefault(number, []).append(history_envelope(recorded, self._origin))
        await asyncio.gather(*(self._send_partition(producer, number, found) for number, found in outgoing.items()))
        done.sent += sum(map(len, outgoing.values()))

    async def _send_partition(self, producer: AIOKafkaProducer, number: int, envelopes: Sequence[Envelope]) -> None:
        """One batch after another: nothing is in the topic that something before it is missing of."""
        batch = producer.create_batch()
        for envelope in envelopes:
            if not self._append(batch, envelope):
                await self._hand_over(producer, batch, number)
                batch = producer.create_batch()
                self._append(batch, envelope)
        await self._hand_over(producer, batch, number)

    def _append(self, batch: Any, envelope: Envelope) -> bool:  # noqa: ANN401 - aiokafka's builder has no public type
        headers = [*envelope.headers, (HEADER, self._name.encode())]
        return batch.append(key=envelope.key, value=envelope.value, timestamp=None, headers=headers) is not None

    async def _hand_over(self, producer: AIOKafkaProducer, batch: Any, number: int) -> None:  # noqa: ANN401 - as above
        batch.close()
        await cast("Awaitable[Any]", await producer.send_batch(batch, self._topic, partition=number))
