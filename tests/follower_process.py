"""A subscriber as a process: follows the topics into an SQLite file, and says each batch that it stored."""

import asyncio
import sys

from muster_subscriber import subscribe
from muster_subscriber.sqlite import SqliteUsers


async def follow(path: str, servers: str, events_topic: str, snapshot_topic: str, limit: str) -> None:
    table = SqliteUsers(path)
    subscription = subscribe(
        table,
        bootstrap_servers=servers,
        events_topic=events_topic,
        snapshot_topic=snapshot_topic,
        limit=int(limit),
        rest=0.01,
    )
    async with subscription:
        async for batch in subscription.batches():
            table.apply(batch.changes, batch.bookmark)
            sys.stdout.write(f"{len(batch.changes)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(follow(*sys.argv[1:]))
