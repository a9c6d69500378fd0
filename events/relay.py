"""The relay: carries the log to Kafka, in position order, by one leader at a time."""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import Gauge
from psycopg.types.json import set_json_loads

from events.envelope import Envelope, NotOurEvent, Origin, snapshot_envelope
from events.erasures import note_burial, to_bury
from events.histories import entries_at
from events.keyring import Keyring, WrongKey
from events.leadership import Leader, Office
from events.outgoing import Encoder, Outgoing, outgoing_after
from events.parked import ParkedUsers, TooManyParked, stretch_before
from events.partitioning import check_partitions, fix_partitions, partition_of, partition_of_key
from events.publication import Channel, TopicAhead, read_back, save
from events.reader import events_of
from events.recording import Position
from events.sending import Flight, Records, Sender, TopicChanged, idempotent_producer
from events.topics import WrongPartitions, ensure_topics, spans, topic_reader
from runtime.database import Connection
from runtime.failpoints import failpoint
from runtime.logs import logger
from runtime.pacing import wait_at_most
from runtime.settings import Settings

POSITION = Gauge("muster_relay_position", "Every event up to here is in the topics")
LEADING = Gauge("muster_relay_leading", "1 while this process is the relay")
HALTED = Gauge("muster_relay_halted", "1 while the relay waits for an operator")

# pg_advisory_lock key: any number that nothing else in this database locks
LEADERSHIP: Final = 7_203_312
# events at once; what they cost is spread in events.outgoing
BATCH: Final = 1000
STOP_WITHIN: Final = 5.0
# between the beginnings of two stretches under a steady stream: the first event after a rest is sent at once. A stretch
# costs as much as fifty events do, here, in the projector and in Postgres; so the more come, the more are gathered.
GATHER: Final = 0.01
GATHER_FOR_EACH: Final = 0.0004
LONGEST_GATHER: Final = 0.05
SHORTEST_POLL, LONGEST_POLL = 0.005, 0.05
CHECK_TOPICS_EVERY: Final = 5.0
LOOK_FOR_TASKS_EVERY: Final = 0.5
BURIED_AT_ONCE: Final = 100

log = logger(__name__)


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
        self._encoder = Encoder(keyring, Origin.of(settings))
        numbers = range(settings.topic_partitions)
        self._history = [TopicPartition(settings.events_topic, number) for number in numbers]
        self._snapshot = [TopicPartition(settings.snapshot_topic, number) for number in numbers]
        self.parked = ParkedUsers(limit=settings.parked_limit)

    async def _lead(self, connection: Connection) -> None:
        set_json_loads(orjson.loads, connection)
        await check_partitions(connection, self._settings.topic_partitions)
        await ensure_topics(self._settings)
        # only now: topics that were there before say which number is the right one
        await fix_partitions(connection, self._settings.topic_partitions)
        producer = idempotent_producer(self._settings)
        reader = topic_reader(self._settings)
        try:
            await producer.start()
            await reader.start()
            channels = await read_back(connection, reader, self._partitions)
            # only its view of offsets is needed from here on: assigned, it would go on fetching
            reader.unsubscribe()
            self._leads(position=min(channel.complete for channel in channels.values()))
            await self._publish(connection, Sender(producer, channels), reader)
        finally:
            # a broker that is away must not keep the leadership from another process
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN):
                    await asyncio.gather(producer.stop(), reader.stop())

    @property
    def _partitions(self) -> list[TopicPartition]:
        return [*self._history, *self._snapshot]

    async def _publish(self, connection: Connection, sender: Sender, reader: AIOKafkaConsumer) -> None:
        loop = asyncio.get_running_loop()
        channels = sender.channels
        position = min(channel.complete for channel in channels.values())
        # partitions that an earlier leader found without traffic are complete as well, once this is saved
        await save(connection, channels)
        await self.parked.look(connection)
        poll = SHORTEST_POLL
        checked = looked = loop.time()
        flying: tuple[Flight, Position] | None = None
        while not self._stopping.is_set():
            self._wake.clear()
            began = loop.time()
            if flying is None and loop.time() - looked > LOOK_FOR_TASKS_EVERY:
                if len(self.parked):
                    await self._retry(connection, sender, position)
                await self._bury(connection, sender, position)
                looked = loop.time()
            stretch = await outgoing_after(connection, self._keyring, self._encoder, position, limit=BATCH)
            found = await self.parked.hold_back(connection, stretch.found)
            if flying is not None:
                # the next is handed over only now: should this not arrive, nothing that comes after it does
                await self._land(connection, sender, *flying)
                flying = None
            if stretch.end is not None:
                failpoint("relay.before_send")
                flying = await sender.hand_over(self._records(found, channels)), stretch.end
                position = stretch.end
                if len(stretch.found) < BATCH or loop.time() - looked > LOOK_FOR_TASKS_EVERY:
                    await self._land(connection, sender, *flying)
                    flying = None
                if len(stretch.found) < BATCH:
                    await wait_at_most(self._stopping, began + gathering(len(stretch.found)) - loop.time())
                poll = SHORTEST_POLL
                continue
            if loop.time() - checked > CHECK_TOPICS_EVERY:
                await self._check(reader, channels)
                checked = loop.time()
            await wait_at_most(self._wake, poll)
            poll = min(poll * 2, LONGEST_POLL)
        if flying is not None:
            await self._land(connection, sender, *flying)

    async def _land(self, connection: Connection, sender: Sender, flight: Flight, end: Position) -> None:
        """Wait for what is on its way, after which every partition has what it is to have up to `end`."""
        await sender.settle(flight)
        for channel in sender.channels.values():
            channel.complete = max(channel.complete, end)
        failpoint("relay.before_save")
        await save(connection, sender.channels)
        POSITION.set(end)

    async def _retry(self, connection: Connection, sender: Sender, position: Position) -> None:
        """Publish a parked user's events where an operator asks for it, up to where everybody else's are."""
        await self.parked.look(connection)
        for user in self.parked.to_retry():
            version = user.version
            while True:
                found = await events_of(connection, self._keyring, user.user_id, from_version=version, limit=BATCH)
                late, stopper = stretch_before(found, position)
                outgoing = [Outgoing.of(one, self._encoder.origin) for one in late]
                failpoint("relay.before_send")
                await sender.send(self._late_records(outgoing, sender.channels))
                failpoint("relay.retried")
                await save(connection, sender.channels)
                if stopper is not None:
                    await self.parked.keep(connection, stopper)
                    break
                if len(late) < BATCH:
                    await self.parked.release(connection, user)
                    log.info("published after all", user_id=str(user.user_id))
                    break
                version = late[-1].version + 1
        await self.parked.look(connection)

    async def _bury(self, connection: Connection, sender: Sender, position: Position) -> None:
        """Send a tombstone for each user who was erased, whatever was sent of them before, and note that it is there.

        Done again after a kill: a second one says the same.
        """
        waiting = await to_bury(connection, position, BURIED_AT_ONCE)
        if not waiting:
            return
        found = await entries_at(connection, self._keyring, waiting)
        records: dict[TopicPartition, list[tuple[Position, Envelope]]] = {}
        for entry in found.values():
            if entry.recorded is not None:
                number = partition_of(entry.user_id, self._settings.topic_partitions)
                envelope = snapshot_envelope(entry.recorded, self._encoder.origin)
                records.setdefault(self._snapshot[number], []).append((entry.position, envelope))
        await sender.send(records)
        failpoint("relay.burying")
        await save(connection, sender.channels)
        await note_burial(connection, [entry.user_id for entry in found.values() if entry.recorded is not None])
        failpoint("relay.buried")

    def _records(self, found: Iterable[Outgoing], channels: Mapping[TopicPartition, Channel]) -> Records:
        """What each partition lacks of these events."""
        records: dict[TopicPartition, list[tuple[Position, Envelope]]] = {}
        for one in found:
            for partition, envelope in self._places(one):
                if one.position > channels[partition].complete:
                    records.setdefault(partition, []).append((one.position, envelope))
        return records

    def _late_records(self, found: Sequence[Outgoing], channels: Mapping[TopicPartition, Channel]) -> Records:
        """As `_records`, of one user's events from before where the partitions are.

        Those that a killed relay had sent already end with the partition's last record.
        """
        positions = {one.position for one in found}
        records: dict[TopicPartition, list[tuple[Position, Envelope]]] = {}
        for one in found:
            for partition, envelope in self._places(one):
                last = channels[partition].last_position
                if last not in positions or one.position > last:
                    records.setdefault(partition, []).append((one.position, envelope))
        return records

    def _places(self, one: Outgoing) -> tuple[tuple[TopicPartition, Envelope], tuple[TopicPartition, Envelope]]:
        number = partition_of_key(one.history.key, self._settings.topic_partitions)
        return (self._history[number], one.history), (self._snapshot[number], one.snapshot)

    async def _check(self, reader: AIOKafkaConsumer, channels: dict[TopicPartition, Channel]) -> None:
        """Notice a topic that was truncated or made anew while nothing was being sent."""
        for partition, span in (await spans(reader, list(channels))).items():
            if span.end != channels[partition].next_offset:
                raise TopicChanged(
                    f"{partition.topic}-{partition.partition} ends at offset {span.end},"
                    f" not at {channels[partition].next_offset}"
                )


def gathering(found: int) -> float:
    """Seconds from the beginning of a stretch of so many events to that of the next."""
    return min(GATHER + found * GATHER_FOR_EACH, LONGEST_GATHER)
