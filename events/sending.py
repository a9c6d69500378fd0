"""Records handed over to the brokers, partition by partition, and what these acknowledge."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from prometheus_client import Counter

from events.broker_connection import connection_arguments
from events.envelope import Envelope
from events.publication import Channel
from events.recording import Position
from runtime.broker_settings import BrokerSettings

PUBLISHED = Counter("muster_relay_published_total", "Records acknowledged by the broker", ["topic"])

DEADLINE: Final = 30.0

# by partition, in order
Records = Mapping[TopicPartition, Sequence[tuple[Position, Envelope]]]


class TopicChanged(Exception):
    """A partition is not as this relay left it: its state must be read again before anything is sent."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch of one partition, on its way: how many records, the position of the last, and what is to come."""

    partition: TopicPartition
    count: int
    last: Position
    acknowledgement: Awaitable[Any]


# in the order of each partition
Flight = Sequence[_Batch]


def idempotent_producer(settings: BrokerSettings) -> AIOKafkaProducer:
    """Every record that it was given is in the topic once, in order, once it is acknowledged."""
    return AIOKafkaProducer(
        **connection_arguments(settings),
        enable_idempotence=True,
        max_batch_size=262_144,
        request_timeout_ms=10_000,
    )


class Sender:
    """Sends to partitions whose state it keeps. Raises TopicChanged, KafkaError and TimeoutError: then it is void."""

    def __init__(self, producer: AIOKafkaProducer, channels: dict[TopicPartition, Channel]) -> None:
        self._producer = producer
        self.channels = channels

    async def send(self, records: Records) -> None:
        """Send them and wait until they are acknowledged. What was handed over before must be settled by then."""
        await self.settle(await self.hand_over(records))

    async def hand_over(self, records: Records) -> Flight:
        """Give them to the producer; what was handed over before them may still be on its way."""
        async with asyncio.timeout(DEADLINE):
            flights = await asyncio.gather(
                *(self._hand_over(partition, envelopes) for partition, envelopes in records.items())
            )
        return [batch for flight in flights for batch in flight]

    async def settle(self, flight: Flight) -> None:
        """Wait until all is acknowledged, and keep where the partitions are."""
        async with asyncio.timeout(DEADLINE):
            for batch in flight:
                partition, channel = batch.partition, self.channels[batch.partition]
                metadata = await batch.acknowledgement
                if metadata.offset != channel.next_offset:
                    raise TopicChanged(
                        f"{partition.topic}-{partition.partition} took records at offset {metadata.offset}"
                        f" where {channel.next_offset} was next"
                    )
                channel.next_offset += batch.count
                channel.last_position = batch.last
                PUBLISHED.labels(partition.topic).inc(batch.count)

    async def _hand_over(
        self, partition: TopicPartition, envelopes: Sequence[tuple[Position, Envelope]]
    ) -> Sequence[_Batch]:
        flight: list[_Batch] = []
        batch, last = self._producer.create_batch(), envelopes[0][0]
        for position, envelope in envelopes:
            if not _append(batch, envelope):
                flight.append(await self._close(batch, partition, last))
                batch = self._producer.create_batch()
                _append(batch, envelope)
            last = position
        flight.append(await self._close(batch, partition, last))
        return flight

    async def _close(self, batch: Any, partition: TopicPartition, last: Position) -> _Batch:  # noqa: ANN401 - aiokafka's builder has no public type
        batch.close()
        producer: Any = self._producer
        sent: Awaitable[Any] = await producer.send_batch(batch, partition.topic, partition=partition.partition)
        return _Batch(partition, batch.record_count(), last, sent)


def _append(batch: Any, envelope: Envelope) -> bool:  # noqa: ANN401 - as above
    """False when the batch has no room left for it."""
    taken = batch.append(key=envelope.key, value=envelope.value, timestamp=None, headers=envelope.headers)
    return taken is not None
