"""A plain consumer of the events topic that notes when each user's first record has reached it.

A process of its own: reads a Consuming as JSON from stdin, says `ready` on a line of its own once it follows the end of
the topic, and writes the users' ids and the moments, on the clock of freshness.Fresh, to stdout.
"""

import asyncio
import gc
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from freshness import NICENESS

from events.topics import poll


@dataclass(frozen=True, slots=True, kw_only=True)
class Consuming:
    """Ends after `count` users, or `seconds`. `rest`: pause after empty fetches, for a broker that holds none back."""

    servers: str
    topic: str
    partitions: int
    count: int
    seconds: float
    rest: float


async def received(asked: Consuming) -> dict[str, float]:
    consumer = AIOKafkaConsumer(bootstrap_servers=asked.servers, enable_auto_commit=False, fetch_max_wait_ms=250)
    await consumer.start()
    seen: dict[str, float] = {}
    try:
        partitions = [TopicPartition(asked.topic, number) for number in range(asked.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_end(*partitions)
        for partition in partitions:
            # asked for, an end is where it stood then
            await consumer.position(partition)
        print("ready", flush=True)
        deadline = time.perf_counter() + asked.seconds
        while len(seen) < asked.count and time.perf_counter() < deadline:
            polled = await poll(consumer, seconds=0.003 if asked.rest else 0.25, limit=1000)
            now = time.perf_counter()
            for records in polled.values():
                for record in records:
                    seen.setdefault((record.key or b"").decode(), now)
            if asked.rest and not polled:
                consumer.pause(*partitions)
                await asyncio.sleep(asked.rest)
                consumer.resume(*partitions)
    finally:
        await consumer.stop()
    return seen


async def _main() -> None:
    json.dump(await received(Consuming(**json.load(sys.stdin))), sys.stdout)


if __name__ == "__main__":
    gc.disable()
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    uvloop.run(_main())
