"""The relay: carries the log to Kafka, in position order, by one leader at a time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from prometheus_client import Counter, Gauge

from events.broker_connection import connection_arguments
from events.envelope import Envelope, NotOurEvent, Origin, history_envelope, snapshot_envelope
from events.erasures import note_burial, to_bury
from events.histories import entries_at
from events.keyring import Keyring, WrongKey
from events.leadership import Leader, Office
from events.parked import ParkedUsers, TooManyParked, stretch_before
from events.partitioning import check_partitions, fix_partitions, partition_of
from events.publication import Channel, TopicAhead, read_back, save
from events.reader import events_after, events_of
from events.recording import Position, RecordedEvent
from events.topics import WrongPartitions, ensure_topics, spans, topic_reader
from runtime.database import Connection
from runtime.failpoints import failpoint
from runtime.logs import logger
from runtime.pacing import wait_at_most
from runtime.settings import Settings

PUBLISHED = Counter("muster_relay_published_total", "Records acknowledged by the broker", ["topic"])
POSITION = Gauge("muster_relay_position", "Every event up to here is in the topics")
LEADING = Gauge("muster_relay_leading", "1 while this process is the relay")
HALTED = Gauge("muster_relay_halted", "1 while the relay waits for an operator")

# pg_advisory_lock key: any number that nothing else in this database locks
LEADERSHIP: Final = 7_203_312
BATCH: Final = 250
SEND_DEADLINE: Final = 30.0
STOP_WITHIN: Final = 5.0
SHORTEST_POLL, LONGEST_POLL = 0.005, 0.05
CHECK_TOPICS_EVERY: Final = 5.0
LOOK_FOR_TASKS_EVERY: Final = 0.5
BURIED_AT_ONCE: Final = 100

Encode = Callable[[RecordedEvent, Origin], Envelope]

log = logger(__name__)


class TopicChanged(Exception):
    """A partition is not as this relay left it: its state must be read again before anything is sent."""


class Relay(Leader):
    """Publishes every event of the log to the history and the snapshot topic.

    Per user, records are in the order of versions. A crash at any point misses nothing; nothing that the topic holds
    already is sent again, since each start reads the partitions' last records back. Runs until `stop`.
    """

    office = Office(
        name="relay",
        lock=LEADERSHIP,
        grave=(TopicAhead, WrongPartitions, WrongKey, TooManyParked),
        passing=(TopicChanged, NotOurEvent),
        leading=LEADING,
        halted=HALTED,
    )

    def __init__(self, settings: Settings, keyring: Keyring) -> None:
        super().__init__(settings)
        self._keyring = keyring
        self._origin = Origin.of(settings)
        self.parked = ParkedUsers(limit=settings.parked_limit)

    async def _lead(self, connection: Connection) -> None:
        await check_partitions(connection, self._settings.topic_partitions)
        await ensure_topics(self._settings)
        # only now: topics that were there before say which number is the right one
        await fix_partitions(connection, self._settings.topic_partitions)
        producer = AIOKafkaProducer(
            **connection_arguments(self._settings),
            enable_idempotence=True,
            max_batch_size=262_144,
            request_timeout_ms=10_000,
        )
        reader = topic_reader(self._settings)
        try:
            await producer.start()
            await reader.start()
            channels = await read_back(connection, reader, self._partitions)
            # only its view of offsets is needed from here on: assigned, it would go on fetching
            reader.unsubscribe()
            self._leads(position=min(channel.complete for channel in channels.values()))
            await self._publish(connection, producer, reader, channels)
        finally:
            # a broker that is away must not keep the leadership from another process
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN):
                    await asyncio.gather(producer.stop(), reader.stop())

    @property
    def _partitions(self) -> list[TopicPartition]:
        numbers = range(self._settings.topic_partitions)
        return [TopicPartition(topic, number) for topic in self._encoders for number in numbers]

    @property
    def _encoders(self) -> dict[str, Encode]:
        return {
            self._settings.events_topic: history_envelope,
            self._settings.snapshot_topic: snapshot_envelope,
        }

    async def _publish(
        self,
        connection: Connection,
        producer: AIOKafkaProducer,
        reader: AIOKafkaConsumer,
        channels: dict[TopicPartition, Channel],
    ) -> None:
        loop = asyncio.get_running_loop()
        position = min(channel.complete for channel in channels.values())
        # partitions that an earlier leader found without traffic are complete as well, once this is saved
        await save(connection, channels)
        await self.parked.look(connection)
        poll = SHORTEST_POLL
        checked = looked = loop.time()
        while not self._stopping.is_set():
            self._wake.clear()
            if loop.time() - looked > LOOK_FOR_TASKS_EVERY:
                if len(self.parked):
                    await self._retry(connection, producer, channels, position)
                await self._bury(connection, producer, channels, position)
                looked = loop.time()
            stretch = await events_after(connection, self._keyring, position, limit=BATCH)
            if stretch.end is not None:
                await self._send(producer, channels, await self.parked.hold_back(connection, stretch.found))
                position = stretch.end
                for channel in channels.values():
                    channel.complete = max(channel.complete, position)
                failpoint("relay.before_save")
                await save(connection, channels)
                POSITION.set(position)
                poll = SHORTEST_POLL
                continue
            if loop.time() - checked > CHECK_TOPICS_EVERY:
                await self._check(reader, channels)
                checked = loop.time()
            await wait_at_most(self._wake, poll)
            poll = min(poll * 2, LONGEST_POLL)

    async def _retry(
        self,
        connection: Connection,
        producer: AIOKafkaProducer,
        channels: dict[TopicPartition, Channel],
        position: Position,
    ) -> None:
        """Publish a parked user's events where an operator asks for it, up to where everybody else's are."""
        await self.parked.look(connection)
        for user in self.parked.to_retry():
            version = user.version
            while True:
                found = await events_of(connection, self._keyring, user.user_id, from_version=version, limit=BATCH)
                late, stopper = stretch_before(found, position)
                await self._send(producer, channels, late, late=True)
                failpoint("relay.retried")
                await save(connection, channels)
                if stopper is not None:
                    await self.parked.keep(connection, stopper)
                    break
                if len(late) < BATCH:
                    await self.parked.release(connection, user)
                    log.info("published after all", user_id=str(user.user_id))
                    break
                version = late[-1].version + 1
        await self.parked.look(connection)

    async def _bury(
        self,
        connection: Connection,
        producer: AIOKafkaProducer,
        channels: dict[TopicPartition, Channel],
        position: Position,
    ) -> None:
        """Send a tombstone for each user who was erased, whatever was sent of them before, and note that it is there.

        Done again after a kill: a second one says the same.
        """
        waiting = await to_bury(connection, position, BURIED_AT_ONCE)
        if not waiting:
            return
        found = await entries_at(connection, self._keyring, waiting)
        outgoing: dict[TopicPartition, list[tuple[Position, Envelope]]] = {}
        for entry in found.values():
            if entry.recorded is not None:
                number = partition_of(entry.user_id, self._settings.topic_partitions)
                envelope = snapshot_envelope(entry.recorded, self._origin)
                partition = TopicPartition(self._settings.snapshot_topic, number)
                outgoing.setdefault(partition, []).append((entry.position, envelope))
        await self._send_all(producer, channels, outgoing)
        failpoint("relay.burying")
        await save(connection, channels)
        await note_burial(connection, [entry.user_id for entry in found.values() if entry.recorded is not None])
        failpoint("relay.buried")

    async def _send(
        self,
        producer: AIOKafkaProducer,
        channels: dict[TopicPartition, Channel],
        recorded: Sequence[RecordedEvent],
        *,
        late: bool = False,
    ) -> None:
        """Send what each partition lacks and wait for the acknowledgements. Raises TopicChanged and KafkaError.

        `late`: one user's events from before where the partitions are. Those that a killed relay had sent already end
        with the partition's last record.
        """
        outgoing: dict[TopicPartition, list[tuple[Position, Envelope]]] = {}
        positions = {found.position for found in recorded}
        for found in recorded:
            number = partition_of(found.event.user.id, self._settings.topic_partitions)
            for topic, encode in self._encoders.items():
                partition = TopicPartition(topic, number)
                channel = channels[partition]
                sent = channel.complete
                if late:
                    sent = channel.last_position if channel.last_position in positions else Position(0)
                if found.position > sent:
                    envelope = encode(found, self._origin)
                    outgoing.setdefault(partition, []).append((found.position, envelope))
        failpoint("relay.before_send")
        await self._send_all(producer, channels, outgoing)

    async def _send_all(
        self,
        producer: AIOKafkaProducer,
        channels: dict[TopicPartition, Channel],
        outgoing: Mapping[TopicPartition, Sequence[tuple[Position, Envelope]]],
    ) -> None:
        async with asyncio.timeout(SEND_DEADLINE):
            await asyncio.gather(
                *(
                    self._send_partition(producer, partition, channels[partition], envelopes)
                    for partition, envelopes in outgoing.items()
                )
            )

    async def _send_partition(
        self,
        producer: AIOKafkaProducer,
        partition: TopicPartition,
        channel: Channel,
        envelopes: Sequence[tuple[Position, Envelope]],
    ) -> None:
        acknowledged: list[tuple[int, Awaitable[Any]]] = []
        batch = producer.create_batch()
        for _, envelope in envelopes:
            if not _append(batch, envelope):
                acknowledged.append((batch.record_count(), await self._hand_over(producer, batch, partition)))
                batch = producer.create_batch()
                _append(batch, envelope)
        acknowledged.append((batch.record_count(), await self._hand_over(producer, batch, partition)))
        for count, acknowledgement in acknowledged:
            metadata = await acknowledgement
            if metadata.offset != channel.next_offset:
                raise TopicChanged(
                    f"{partition.topic}-{partition.partition} took records at offset {metadata.offset}"
                    f" where {channel.next_offset} was next"
                )
            channel.next_offset += count
            PUBLISHED.labels(partition.topic).inc(count)
        channel.last_position = envelopes[-1][0]

    @staticmethod
    async def _hand_over(producer: AIOKafkaProducer, batch: Any, partition: TopicPartition) -> Awaitable[Any]:  # noqa: ANN401 - aiokafka's builder has no public type
        batch.close()
        return cast("Awaitable[Any]", await producer.send_batch(batch, partition.topic, partition=partition.partition))

    async def _check(self, reader: AIOKafkaConsumer, channels: dict[TopicPartition, Channel]) -> None:
        """Notice a topic that was truncated or made anew while nothing was being sent."""
        for partition, span in (await spans(reader, list(channels))).items():
            if span.end != channels[partition].next_offset:
                raise TopicChanged(
                    f"{partition.topic}-{partition.partition} ends at offset {span.end},"
                    f" not at {channels[partition].next_offset}"
                )


def _append(batch: Any, envelope: Envelope) -> bool:  # noqa: ANN401 - as above
    """False when the batch has no room left for it."""
    taken = batch.append(key=envelope.key, value=envelope.value, timestamp=None, headers=envelope.headers)
    return taken is not None
