"""`muster trigger`: samples sent to a topic that a subscriber's developer names."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from command_api.decide import UserExists, UserGone
from events.broker_connection import connection_arguments, trouble
from events.envelope import Origin, place_in
from events.partitioning import partition_of
from events.recording import Position
from events.replay import HEADER as REPLAYED
from events.topics import Span, ensure_topic, partition_numbers, record_at, records_in, spans, topic_reader
from events.user import User, UserId
from events.wire import user_from_wire
from muster.answers import Answer, Parts
from muster.failures import CannotRun, Refused
from muster.samples import HEADER, SOURCE, SampleType, sample
from runtime.broker_settings import BrokerSettings
from runtime.ids import new_id

SEND_WITHIN: Final = 30.0
LIVE: Final = ("events_topic", "snapshot_topic", "checkpoints_topic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """`user` as it was told, if it was."""

    kind: SampleType
    topic: str
    count: int
    user: str | None


def trigger(settings: BrokerSettings, asked: Asked) -> Answer:
    """Raises Refused and CannotRun."""
    live = {getattr(settings, name) for name in LIVE} | {BrokerSettings.model_fields[name].default for name in LIVE}
    if asked.topic in live:
        raise Refused(
            f"{asked.topic} is a live topic: everybody who follows it would take the sample for true. Name a topic of"
            " your own",
            code="live_topic",
        )
    user_id = _user(asked.user)
    if user_id is not None and asked.count > 1 and asked.kind not in {"user.updated", "user.snapshot"}:
        raise CannotRun(f"--count with --user: one user has no more than one {asked.kind}", code="usage")
    return asyncio.run(_trigger(settings, asked, user_id))


async def _trigger(settings: BrokerSettings, asked: Asked, user_id: UserId | None) -> Answer:
    told = Parts()
    try:
        async with asyncio.timeout(SEND_WITHIN), _developers_topic(settings, asked.topic) as topic:
            before = None if user_id is None else await topic.known(user_id)
            for _ in range(asked.count):
                whose = user_id or UserId(new_id())
                before, document = await topic.send(asked.kind, whose, before if user_id else None)
                told.add(document, orjson.dumps(document).decode())
    except UserExists:
        raise Refused(f"user {user_id} is there already: say user.updated", code="user_exists") from None
    except UserGone:
        raise Refused(f"user {user_id} is deleted in {asked.topic}: take another id", code="user_deleted") from None
    except (KafkaError, OSError, TimeoutError) as error:
        raise CannotRun(await trouble(settings, error)) from None
    return Answer(result={"topic": asked.topic, "records": told.documents})


@dataclass(slots=True)
class _Topic:
    name: str
    spans: Mapping[TopicPartition, Span]
    last: Position
    origin: Origin
    reader: AIOKafkaConsumer
    # what it answers has no type
    producer: Any

    async def known(self, user_id: UserId) -> User | None:
        """The user as the topic's newest record has them; raises UserGone, and Refused for another's record."""
        partition = self._partition(user_id)
        newest, found = None, False
        async for records in records_in(self.reader, partition, self.spans[partition]):
            for record in records:
                if record.key == str(user_id).encode():
                    newest, found = record.value, True
        if not found:
            return None
        if newest is None:
            raise UserGone
        try:
            user = user_from_wire(orjson.loads(newest)["user"])
        except (KeyError, TypeError, ValueError):
            raise Refused(f"what {self.name} has of user {user_id} is no record of Muster's", code="not_ours") from None
        if user.deleted_at is not None:
            raise UserGone
        return user

    async def send(self, kind: SampleType, user_id: UserId, before: User | None) -> tuple[User, dict[str, Any]]:
        """Returns when the broker has it: the user as it is now, and the record as `muster consume` shows it."""
        self.last = Position(self.last + 1)
        made = sample(kind, user_id, before, position=self.last, at=datetime.now(UTC), origin=self.origin)
        key, value, headers = made.envelope.key, made.envelope.value, list(made.envelope.headers)
        partition = self._partition(user_id).partition
        sent = await self.producer.send_and_wait(self.name, value, key, partition=partition, headers=headers)
        document: dict[str, Any] = {
            "partition": partition,
            "offset": sent.offset,
            "key": key.decode(),
            "headers": {name: content.decode() for name, content in headers},
            "value": None if value is None else orjson.loads(value),
        }
        return made.user, document

    def _partition(self, user_id: UserId) -> TopicPartition:
        return TopicPartition(self.name, partition_of(user_id, len(self.spans)))


@asynccontextmanager
async def _developers_topic(settings: BrokerSettings, name: str) -> AsyncGenerator[_Topic]:
    """Made like the live one if it is missing. Raises Refused for one that a relay publishes to, whatever its name."""
    await ensure_topic(settings, name)
    partitions = [TopicPartition(name, number) for number in await partition_numbers(settings, name)]
    async with AsyncExitStack() as stack:
        reader = topic_reader(settings)
        stack.push_async_callback(reader.stop)
        producer = AIOKafkaProducer(
            **connection_arguments(settings), enable_idempotence=True, acks="all", request_timeout_ms=10_000
        )
        stack.push_async_callback(producer.stop)
        await reader.start()
        await producer.start()
        held = await spans(reader, partitions)
        last = Position(0)
        for partition, span in held.items():
            record = await record_at(reader, partition, span.end - 1) if span.end > span.start else None
            if record is None or (place := place_in(record.headers)) is None:
                continue
            if not {HEADER[0], REPLAYED} & dict(record.headers).keys():
                raise Refused(f"{name} holds events as a relay publishes them: name another topic", code="live_topic")
            last = max(last, place[0])
        yield _Topic(name, held, last, Origin.named(SOURCE, settings), reader, producer)


def _user(told: str | None) -> UserId | None:
    try:
        return None if told is None else UserId(UUID(told))
    except ValueError:
        raise CannotRun(f"--user takes a user's id, and {told!r} is none", code="usage") from None
