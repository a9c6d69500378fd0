"""aiokafka's own limit: the records that the relay would send of some events, again and again, made beforehand.

A process of its own: reads a Production as JSON from stdin, writes a Produced to stdout.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Any, Literal

import psycopg
import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.errors import UnknownTopicOrPartitionError
from psycopg.rows import dict_row

from events.broker_connection import connection_arguments
from events.envelope import Envelope, Origin, history_envelope, snapshot_envelope
from events.keyring import open_keyring
from events.partitioning import partition_of
from events.reader import Unreadable, events_after
from events.recording import Position
from events.topics import ensure_topics
from runtime.database import Row
from runtime.settings import Settings, settings_from_environment

# events whose records are held ready
MADE = 20_000
# as the relay reads them
AT_ONCE = 2_000

Records = Sequence[tuple[str, int, Envelope]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Production:
    """How many events' records to send, two an event; `send` hands over each, `send_batch` whole batches."""

    environment: Mapping[str, str]
    manner: Literal["send", "send_batch"]
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    seconds: float
    cpu: float


async def produced(asked: Production) -> Produced:
    settings = settings_from_environment(**{name.lower(): value for name, value in asked.environment.items()})
    made = await _made(settings)
    await _have_topics(settings)
    producer = AIOKafkaProducer(
        **connection_arguments(settings), enable_idempotence=True, acks="all", max_batch_size=262_144
    )
    await producer.start()
    gc.collect()
    gc.freeze()
    cpu, began = time.process_time(), time.perf_counter()
    stock = cycle(made)
    for start in range(0, asked.events, AT_ONCE):
        records = [record for pair in islice(stock, min(AT_ONCE, asked.events - start)) for record in pair]
        await (_send_each(producer, records) if asked.manner == "send" else _send_batches(producer, records))
    await producer.flush()
    found = Produced(seconds=time.perf_counter() - began, cpu=time.process_time() - cpu)
    await producer.stop()
    return found


async def _made(settings: Settings) -> list[Records]:
    origin = Origin.of(settings)
    made: list[Records] = []
    connection = await psycopg.AsyncConnection[Row].connect(
        settings.database_url.get_secret_value(), autocommit=True, row_factory=dict_row
    )
    async with connection:
        stretch = await events_after(connection, open_keyring(settings), Position(0), limit=MADE)
    for found in stretch.found:
        assert not isinstance(found, Unreadable)
        number = partition_of(found.user_id, settings.topic_partitions)
        made.append(
            [
                (settings.events_topic, number, history_envelope(found, origin)),
                (settings.snapshot_topic, number, snapshot_envelope(found, origin)),
            ]
        )
    return made


async def _have_topics(settings: Settings) -> None:
    # a broker may not know for a moment what it has just made
    async with asyncio.timeout(10):
        while True:
            try:
                await ensure_topics(settings)
            except UnknownTopicOrPartitionError:
                await asyncio.sleep(0.1)
            else:
                return


async def _send_each(producer: Any, records: Records) -> None:  # noqa: ANN401 - partly untyped
    sent: list[asyncio.Future[Any]] = [
        await producer.send(topic, envelope.value, envelope.key, partition=number, headers=list(envelope.headers))
        for topic, number, envelope in records
    ]
    await asyncio.gather(*sent)


async def _send_batches(producer: AIOKafkaProducer, records: Records) -> None:
    places: dict[tuple[str, int], list[Envelope]] = {}
    for topic, number, envelope in records:
        places.setdefault((topic, number), []).append(envelope)
    await asyncio.gather(*(_send_to(producer, *place, envelopes) for place, envelopes in places.items()))


async def _send_to(producer: Any, topic: str, number: int, envelopes: Sequence[Envelope]) -> None:  # noqa: ANN401 - partly untyped
    sent: list[asyncio.Future[Any]] = []
    batch: Any = producer.create_batch()
    for envelope in envelopes:
        while batch.append(key=envelope.key, value=envelope.value, timestamp=None, headers=envelope.headers) is None:
            batch.close()
            sent.append(await producer.send_batch(batch, topic, partition=number))
            batch = producer.create_batch()
    batch.close()
    sent.append(await producer.send_batch(batch, topic, partition=number))
    await asyncio.gather(*sent)


def main() -> None:
    asked = Production(**json.load(sys.stdin))
    json.dump(asdict(uvloop.run(produced(asked))), sys.stdout)


if __name__ == "__main__":
    main()
