import asyncio
import zlib
from typing import Final
from uuid import UUID

import psycopg

from runtime.database import Connection, Session
from runtime.failures import Unavailable
from runtime.settings import BadSettings, Settings

ASK_TIMEOUT: Final = 2.0
AGREED: Final = "SELECT partitions FROM log.partitioning"


class WrongPartitions(Exception):
    """There are another number of partitions than TOPIC_PARTITIONS says; it is fixed for ever."""


def partition_of(user_id: UUID, partitions: int) -> int:
    """The partition of a user's events, the same in both topics: CRC-32 of the key, as librdkafka's `consistent`."""
    return partition_of_key(str(user_id).encode(), partitions)


def partition_of_key(key: bytes, partitions: int) -> int:
    """As `partition_of`, by the key of the user's records."""
    return zlib.crc32(key) % partitions


async def check_partitions(connection: Connection, partitions: int) -> None:
    """Raises WrongPartitions when the log was begun with another number of them."""
    row = await (await connection.execute(AGREED)).fetchone()
    if row is not None and row["partitions"] != partitions:
        raise WrongPartitions(differing(partitions, row["partitions"]))


async def fix_partitions(connection: Connection, partitions: int) -> None:
    """Fix the number for ever, unless it is; raises WrongPartitions as `check_partitions` does."""
    await connection.execute(
        "INSERT INTO log.partitioning (partitions) VALUES (%s) ON CONFLICT DO NOTHING", (partitions,)
    )
    await check_partitions(connection, partitions)


def check_partitions_setting(settings: Settings) -> None:
    """Raises BadSettings when the log was begun with another number of partitions than TOPIC_PARTITIONS says.

    A database that does not answer passes: it is asked again before anything is published or applied.
    """

    async def ask() -> int | None:
        session = Session(
            settings.database_url.get_secret_value(), application="muster start", timeout=ASK_TIMEOUT, reads=True
        )
        try:
            rows = await session.fetch(AGREED)
        except (Unavailable, psycopg.Error):
            return None
        finally:
            await session.close()
        return rows[0]["partitions"] if rows else None

    agreed = asyncio.run(ask())
    if agreed is not None and agreed != settings.topic_partitions:
        raise BadSettings(differing(settings.topic_partitions, agreed))


def differing(said: int, agreed: int) -> str:
    return (
        f"TOPIC_PARTITIONS is {said}, and this log was begun with {agreed}, which is fixed for ever: set it to {agreed}"
    )
