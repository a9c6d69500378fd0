"""The end of the history topic compared with the log: each record is its event, and no event is left out."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from events.envelope import NotOurEvent, Origin, document_of, fixed_headers, history_envelope, sequence_of
from events.histories import Entry, entries_at
from events.keyring import Keyring
from events.partitioning import partition_of
from events.recording import Position
from events.topics import Record, Span, records_in
from events.wire import ERASED_CHANGE, PERSONAL, erased_record
from projector.findings import Finding
from projector.standing import Standing
from runtime.database import Connection

BETWEEN: Final = """
SELECT e.position, e.user_id, e.version FROM log.events e
WHERE e.position > %s AND e.position < %s AND NOT EXISTS (SELECT 1 FROM log.discarded d WHERE d.position = e.position)
ORDER BY e.position
"""


class Tail:
    """The last records of one partition of the history topic, read while `connection` shows one moment after it."""

    def __init__(
        self, connection: Connection, keyring: Keyring, standing: Standing, partition: TopicPartition, origin: Origin
    ) -> None:
        self._connection = connection
        self._keyring = keyring
        self._standing = standing
        self._partition = partition
        self._origin = origin
        self._seen: set[Position] = set()
        self._first: Position | None = None
        self._last = Position(0)
        self.records = 0

    async def findings(self, consumer: AIOKafkaConsumer, span: Span) -> AsyncIterator[Finding]:
        """Raises TimeoutError and KafkaError."""
        async for records in records_in(consumer, self._partition, span):
            entries = await self._entries(records)
            for record in records:
                self.records += 1
                for finding in self._judge(record, entries):
                    yield finding
        if self._first is not None:
            # a partition that is there from its first record on begins with the log
            first = Position(0) if span.start == 0 else self._first
            async for finding in self._left_out(first, self._last):
                yield finding

    async def _entries(self, records: Sequence[Record]) -> dict[Position, Entry]:
        positions: list[Position] = []
        for record in records:
            try:
                positions.append(sequence_of(record.headers)[0])
            except NotOurEvent:
                continue
        return await entries_at(self._connection, self._keyring, positions)

    def _judge(self, record: Record, entries: dict[Position, Entry]) -> Iterator[Finding]:
        try:
            position, event_id = sequence_of(record.headers)
        except NotOurEvent:
            yield self._finding(record, "it is no event of ours")
            return
        entry = entries.get(position)
        if entry is None or entry.event_id != event_id:
            yield self._finding(record, f"the log has no event {event_id} at position {position}", entry)
            return
        yield from self._judge_place(record, entry)
        if entry.recorded is None:
            # told of the log already
            return
        expected = history_envelope(entry.recorded, self._origin)
        if record.key != expected.key:
            yield self._finding(record, "its key is not the user's id", entry)
        if fixed_headers(record.headers) != fixed_headers(expected.headers):
            yield self._finding(record, "its headers are not those of the event", entry)
        if record.value != expected.value and not _was(record, expected.value, erased=entry.erased):
            yield self._finding(record, "its body is not that of the event", entry)

    def _judge_place(self, record: Record, entry: Entry) -> Iterator[Finding]:
        position = entry.position
        if partition_of(entry.user_id, self._standing.partitions) != self._partition.partition:
            yield self._finding(record, "the user belongs to another partition", entry)
        if position in self._seen:
            yield self._finding(record, f"position {position} is in it twice", entry)
        elif entry.user_id not in self._standing.taken_up:
            if position < self._last:
                yield self._finding(record, f"position {position} comes after {self._last}", entry)
            self._first = position if self._first is None else self._first
            self._last = max(position, self._last)
        self._seen.add(position)

    async def _left_out(self, first: Position, last: Position) -> AsyncIterator[Finding]:
        """Events between two that are there; a user whom the relay holds back has none, or has them later."""
        async with self._connection.cursor(name="between") as cursor:
            await cursor.execute(BETWEEN, (first, last))
            async for row in cursor:
                user_id, position = row["user_id"], Position(row["position"])
                if (
                    position in self._seen
                    or partition_of(user_id, self._standing.partitions) != self._partition.partition
                    or user_id in self._standing.taken_up
                    or row["version"] >= self._standing.unpublished.get(user_id, row["version"] + 1)
                ):
                    continue
                entries = await entries_at(self._connection, self._keyring, [position])
                yield Finding(
                    place=f"{self._partition.topic}-{self._partition.partition}",
                    problem=f"position {position} is left out between {first} and {last}",
                    user_id=user_id,
                    entry=entries[position],
                )

    def _finding(self, record: Record, problem: str, entry: Entry | None = None) -> Finding:
        return Finding(
            place=f"{record.topic}-{record.partition} offset {record.offset}",
            problem=problem,
            user_id=entry.user_id if entry is not None else None,
            entry=entry,
        )


def _was(record: Record, expected: bytes | None, *, erased: bool) -> bool:
    """Whether a body is what the event was published as: in an older version, or with what is erased by now."""
    try:
        held = document_of(record.headers, record.value or b"")
        if erased:
            changes = {name: ERASED_CHANGE if name in PERSONAL else change for name, change in held["changes"].items()}
            held = {**held, "user": erased_record(held["user"]), "changes": changes}
        return held == orjson.loads(expected or b"")
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
