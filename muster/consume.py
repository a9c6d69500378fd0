"""A plain consumer of the history topic, outside any group, for looking at what subscribers get."""

import asyncio
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from events.broker_connection import connection_arguments, trouble
from events.topics import Record, partition_numbers, poll, spans
from muster.answers import Parts
from muster.failures import CannotRun
from runtime.broker_settings import BrokerSettings

QUIET_FOR = 0.5


async def consume(settings: BrokerSettings, topic: str, *, key: str | None, follow: bool) -> Parts:
    """Each record as a line of JSON, oldest first within a partition; with `follow`, go on until cancelled.

    Raises CannotRun when there is no such broker or topic.
    """
    told = Parts()
    # the files that it needs may be another's by now
    consumer: AIOKafkaConsumer | None = None
    try:
        consumer = AIOKafkaConsumer(
            **connection_arguments(settings), enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await consumer.start()
        numbers = await partition_numbers(settings, topic)
        if not numbers:
            raise CannotRun(_no_topic(settings, topic))
        partitions = [TopicPartition(topic, number) for number in numbers]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = {partition: span.end for partition, span in (await spans(consumer, partitions)).items()}
        while follow or any([await consumer.position(partition) < end for partition, end in ends.items()]):
            polled = await poll(consumer, seconds=QUIET_FOR, limit=500)
            for record in sorted((found for records in polled.values() for found in records), key=_sequence):
                if key is None or record.key == key.encode():
                    document = _document(record)
                    told.add(document, orjson.dumps(document).decode())
    except (KafkaError, OSError, asyncio.IncompleteReadError) as error:
        raise CannotRun(await trouble(settings, error)) from None
    finally:
        if consumer is not None:
            await consumer.stop()
    return told


def _no_topic(settings: BrokerSettings, topic: str) -> str:
    hidden = ", or none that this principal may see (`muster acls`)" if settings.may_be_refused else ""
    return f"there is no topic {topic} at {settings.kafka_bootstrap_servers}{hidden}"


def _sequence(record: Record) -> str:
    return next((value.decode() for name, value in record.headers if name == "ce_sequence"), "")


def _document(record: Record) -> dict[str, Any]:
    return {
        "partition": record.partition,
        "offset": record.offset,
        "key": (record.key or b"").decode(),
        "headers": {name: value.decode() for name, value in record.headers},
        "value": orjson.loads(record.value) if record.value is not None else None,
    }
