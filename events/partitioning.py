import zlib
from uuid import UUID


def partition_of(user_id: UUID, partitions: int) -> int:
    """The partition of a user's events, the same in both topics: CRC-32 of the key, as librdkafka's `consistent`."""
    return zlib.crc32(str(user_id).encode()) % partitions
