"""The checkpoints that were signed, remembered outside the database: what a restore takes away, this still knows."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from events.broker_connection import connection_arguments
from events.topics import ensure_compacted, record_at, spans, topic_reader
from runtime.settings import Settings

SEND_DEADLINE: Final = 10.0
STOP_WITHIN: Final = 5.0
# records of other trees behind the last one of ours
LOOKED_THROUGH: Final = 1000


@dataclass(slots=True)
class CheckpointTopic:
    """A compacted topic of one partition: key is a tree's origin, value its newest signed note."""

    _name: str
    _producer: AIOKafkaProducer
    _reader: AIOKafkaConsumer

    async def last(self, origin: str) -> str | None:
        """The note that was signed last for a tree, if any. Raises KafkaError and TimeoutError."""
        partition = TopicPartition(self._name, 0)
        self._reader.assign([partition])
        span = (await spans(self._reader, [partition]))[partition]
        for offset in range(span.end - 1, max(span.start, span.end - LOOKED_THROUGH) - 1, -1):
            record = await record_at(self._reader, partition, offset)
            if record is not None and record.key == origin.encode() and record.value is not None:
                return record.value.decode()
        return None

    async def remember(self, origin: str, note: str) -> None:
        """Returns when the broker has it. Raises KafkaError and TimeoutError."""
        async with asyncio.timeout(SEND_DEADLINE):
            await self._producer.send_and_wait(self._name, key=origin.encode(), value=note.encode(), partition=0)


@asynccontextmanager
async def checkpoint_topic(settings: Settings) -> AsyncGenerator[CheckpointTopic]:
    await ensure_compacted(settings, settings.checkpoints_topic)
    producer = AIOKafkaProducer(
        **connection_arguments(settings),
        enable_idempotence=True,
        request_timeout_ms=10_000,
    )
    reader = topic_reader(settings)
    try:
        await producer.start()
        await reader.start()
        yield CheckpointTopic(settings.checkpoints_topic, producer, reader)
    finally:
        # a broker that is away must not keep the lead from another process
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN):
                await asyncio.gather(producer.stop(), reader.stop())
