"""The snapshot topic compared with the log: the last record of each user is their newest published state."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from events.envelope import (
    Headers,
    NotOurEvent,
    Origin,
    document_of,
    fixed_headers,
    sequence_of,
    snapshot_envelope,
)
from events.histories import FIRST_ID, Entry, entries_at
from events.keyring import Keyring
from events.partitioning import partition_of
from events.recording import Position
from events.topics import Record, Span, records_in
from projector.findings import Finding
from projector.standing import Standing
from runtime.database import Connection

PAGE: Final = 2000

IDS: Final = "SELECT user_id FROM log.user_keys WHERE user_id >= %s ORDER BY user_id LIMIT %s"
# by user the newest event that the topic is said to have
NEWEST: Final = """
SELECT wanted.user_id, newest.position
FROM unnest(%s::uuid[], %s::int[]) AS wanted (user_id, held_back_from)
CROSS JOIN LATERAL (
    SELECT e.position FROM log.events e
    WHERE e.user_id = wanted.user_id AND e.position <= %s
        AND (wanted.held_back_from IS NULL OR e.version < wanted.held_back_from)
        AND NOT EXISTS (SELECT 1 FROM log.discarded d WHERE d.position = e.position)
    ORDER BY e.version DESC LIMIT 1
) newest
"""


@dataclass(frozen=True, slots=True)
class Last:
    """The last record of a user: `digest` is of what it says, None for one newer than what is compared."""

    position: Position
    offset: int
    digest: bytes | None


class Snapshot:
    """One partition of the snapshot topic, read whole: a position and a digest for each of its users in memory."""

    def __init__(
        self, connection: Connection, keyring: Keyring, standing: Standing, partition: TopicPartition, origin: Origin
    ) -> None:
        self._connection = connection
        self._keyring = keyring
        self._standing = standing
        self._partition = partition
        self._origin = origin
        self._last: dict[UUID, Last] = {}
        self.records = 0

    async def findings(self, consumer: AIOKafkaConsumer, span: Span, known_end: int) -> AsyncIterator[Finding]:
        """Records before the offset `known_end` were there before the moment that `connection` shows.

        Raises TimeoutError and KafkaError.
        """
        async for records in records_in(consumer, self._partition, span):
            for record in records:
                self.records += 1
                if (finding := self._take(record, known_end)) is not None:
                    yield finding
        async for finding in self._compare_users():
            yield finding
        for user_id, last in self._last.items():
            if last.digest is not None:
                yield self._finding("the log has no such user", user_id)

    def _take(self, record: Record, known_end: int) -> Finding | None:
        try:
            user_id = UUID((record.key or b"").decode())
            position, _ = sequence_of(record.headers)
        except (NotOurEvent, ValueError):
            return self._finding(f"the record at offset {record.offset} is none of ours")
        if partition_of(user_id, self._standing.partitions) != self._partition.partition:
            return self._finding(f"the record at offset {record.offset} belongs into another partition", user_id)
        if position > self._standing.head:
            if record.offset < known_end:
                return self._finding(f"the log has no position {position}", user_id)
            self._last[user_id] = Last(position, record.offset, None)
            return None
        self._last[user_id] = Last(position, record.offset, _digest(record.value, record.headers))
        return None

    async def _compare_users(self) -> AsyncIterator[Finding]:
        first = FIRST_ID
        while True:
            cursor = await self._connection.execute(IDS, (first, PAGE), prepare=True)
            ids = [row["user_id"] for row in await cursor.fetchall()]
            async for finding in self._compare(
                [one for one in ids if partition_of(one, self._standing.partitions) == self._partition.partition]
            ):
                yield finding
            if len(ids) < PAGE:
                return
            first = UUID(int=ids[-1].int + 1)

    async def _compare(self, ids: Sequence[UUID]) -> AsyncIterator[Finding]:
        written = self._standing.written.get((self._partition.topic, self._partition.partition))
        held_back_from = [self._standing.unpublished.get(user_id) for user_id in ids]
        cursor = await self._connection.execute(
            NEWEST, (list(ids), held_back_from, written.position if written is not None else 0), prepare=True
        )
        newest: dict[UUID, Position] = {row["user_id"]: row["position"] for row in await cursor.fetchall()}
        last = {user_id: self._last.pop(user_id, None) for user_id in ids}
        positions = {*newest.values(), *(one.position for one in last.values() if one is not None)}
        entries = await entries_at(self._connection, self._keyring, sorted(positions))
        for user_id, found in last.items():
            position = newest.get(user_id)
            finding = self._judge(user_id, found, entries, entries[position] if position is not None else None)
            if finding is not None:
                yield finding

    def _judge(
        self, user_id: UUID, found: Last | None, entries: dict[Position, Entry], newest: Entry | None
    ) -> Finding | None:
        if found is None:
            if newest is None or newest.type_name == "UserDeleted":
                # a tombstone goes in the end
                return None
            return self._finding("there is no record of the user", user_id, newest)
        if found.digest is None:
            return None
        entry = entries.get(found.position)
        if entry is None or entry.user_id != user_id:
            return self._finding(f"the log has no event of the user at position {found.position}", user_id, newest)
        if newest is not None and entry.position < newest.position:
            return self._finding(f"the last record is of position {entry.position}", user_id, newest)
        if entry.recorded is None:
            # told of the log already
            return None
        expected = snapshot_envelope(entry.recorded, self._origin)
        if found.digest != _digest(expected.value, expected.headers):
            return self._finding(f"the record at offset {found.offset} is not what the event says", user_id, entry)
        return None

    def _finding(self, problem: str, user_id: UUID | None = None, entry: Entry | None = None) -> Finding:
        place = f"{self._partition.topic}-{self._partition.partition}"
        return Finding(place=place, problem=problem, user_id=user_id, entry=entry)


def _digest(value: bytes | None, headers: Headers) -> bytes:
    """Of what a record says, whichever version it says it in."""
    content = None if value is None else _content(value, headers)
    listed = [[name, content.hex()] for name, content in fixed_headers(headers)]
    return hashlib.blake2b(orjson.dumps([content, listed]), digest_size=16).digest()


def _content(value: bytes, headers: Headers) -> str:
    try:
        user = document_of(headers, value)["user"]
    except (KeyError, TypeError, ValueError):
        # no event says that
        return value.hex()
    return orjson.dumps(user, option=orjson.OPT_SORT_KEYS).hex()
