"""For the tests of whoever subscribes: users who change, and topics that lose and repeat, without a broker.

What comes of them goes the way of production: the same reading, guarding and handing over.
"""

import json
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from muster_subscriber.application import Application
from muster_subscriber.contract import Event
from muster_subscriber.decoding import event_of
from muster_subscriber.follower import MissingEvents, Policy
from muster_subscriber.source import OutOfRange, Span, Topic
from muster_subscriber.subscription import LIMIT, Subscription

PARTITIONS: Final = 3
BEGINNING: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
PERSONAL: Final = ("email", "display_name", "attributes")
CHANGEABLE: Final = (
    *("email", "display_name", "status", "roles", "attributes", "created_at", "password_changed_at", "deleted_at"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


@dataclass(slots=True)
class _Stored:
    """A partition: `start` moves on when it is truncated."""

    records: list[StoredRecord] = field(default_factory=list[StoredRecord])
    start: int = 0
    end: int = 0


class MusterUsers:
    """Users, as Muster publishes them. `events` has every event of everybody, also what the topics lost."""

    def __init__(self, *, partitions: int = PARTITIONS) -> None:
        self.events: list[StoredRecord] = []
        self._records: dict[UUID, dict[str, Any]] = {}
        self._stored = {topic: [_Stored() for _ in range(partitions)] for topic in Topic}
        self._losing = False
        self._following: dict[int, int] = {}

    def create(self, *, email: str | None = None, **fields: Any) -> UUID:  # noqa: ANN401 - fields of any type
        """A new user; what is not given is made up."""
        user_id = UUID(int=0x0192D3C8_5B0E_7C31_9D5E_000000000000 + len(self._records) + 1)
        at = self._now()
        record: dict[str, Any] = {
            "id": str(user_id),
            "version": 1,
            "email": email or f"user{len(self._records) + 1}@example.com",
            "display_name": None,
            "status": "active",
            "roles": ["user"],
            "attributes": {},
            "created_at": at,
            "updated_at": at,
            "password_changed_at": None,
            "deleted_at": None,
        }
        self._publish("UserCreated", user_id, record | fields)
        return user_id

    def update(self, user_id: UUID, **fields: Any) -> None:  # noqa: ANN401 - likewise
        self._publish("UserUpdated", user_id, self._next(user_id) | fields)

    def delete(self, user_id: UUID) -> None:
        self._publish("UserDeleted", user_id, self._next(user_id) | {"deleted_at": self._now()})

    def erase(self, user_id: UUID) -> None:
        """Delete a user, leaving nothing that is personal in the record."""
        blank = dict.fromkeys(PERSONAL)
        self._publish("UserDeleted", user_id, self._next(user_id) | blank | {"deleted_at": self._now(), "erased": True})

    def version(self, user_id: UUID) -> int:
        return int(self._records[user_id]["version"])

    @property
    def living(self) -> dict[UUID, int]:
        """Everybody who is not deleted, with the version."""
        return {user_id: record["version"] for user_id, record in self._records.items() if record["deleted_at"] is None}

    @contextmanager
    def losing(self) -> Generator[None]:
        """What happens within is in the feed and in no topic."""
        self._losing = True
        try:
            yield
        finally:
            self._losing = False

    def repeat(self, user_id: UUID, version: int | None = None) -> None:
        """Put an event into the events topic once more: the newest, unless said otherwise."""
        wanted = str(self.version(user_id) if version is None else version).encode()
        key = str(user_id).encode()
        found = next(one for one in self.events if one.key == key and dict(one.headers)["ce_userversion"] == wanted)
        self._put(Topic.EVENTS, key, found.value, found.headers)

    def poison(self, user_id: UUID, value: bytes | None = b"{") -> None:
        """An event that nobody can read; the log has it whole."""
        with self.losing():
            self.update(user_id)
        last = self.events[-1]
        self._put(Topic.EVENTS, str(user_id).encode(), value, last.headers)

    def put(self, value: bytes | None, *, key: bytes = b"", headers: Mapping[str, bytes] | None = None) -> None:
        """Any record at all, such as another producer's."""
        self._put(Topic.EVENTS, key, value, tuple((headers or {}).items()))

    def truncate(self) -> None:
        """Let the events topic's retention remove all that it has."""
        for stored in self._stored[Topic.EVENTS]:
            stored.records.clear()
            stored.start = stored.end

    def compact(self, *, tombstones: bool = False) -> None:
        """Keep the newest record of each user in the snapshot topic, and of the deleted nothing but `tombstones`."""
        for stored in self._stored[Topic.SNAPSHOT]:
            newest = {record.key: record for record in stored.records}
            stored.records[:] = [
                record
                for record in stored.records
                if record is newest[record.key] and (tombstones or record.value is not None)
            ]

    def make_anew(self, *, filled: bool = True) -> None:
        """New topics of the same names, with all that the log has, or nothing of it yet: see `fill_one`."""
        for topic in Topic:
            self._stored[topic] = [_Stored() for _ in self._stored[topic]]
        if filled:
            for event in self.events:
                self._put_both(event)

    def fill_one(self, number: int) -> None:
        """Put one event of the log into both topics."""
        self._put_both(self.events[number])

    @property
    def feed(self) -> MissingEvents:
        """Where the events are that the topics lost."""
        return _Feed(self)

    def subscription(
        self,
        application: Application,
        *,
        feed: MissingEvents | None = None,
        partitions: Sequence[int] | None = None,
        on_poison: Literal["raise", "deliver"] = "raise",
        strict: bool = False,
        limit: int = LIMIT,
    ) -> Subscription:
        """As `subscribe`; it ends when the application has all that there is."""
        policy = Policy(on_poison=on_poison, strict=strict)
        return Subscription(self, application, feed=feed, partitions=partitions, policy=policy, limit=limit)

    # what follows makes it a source of records, as a broker is

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        yield

    async def partitions(self) -> Sequence[int]:
        return range(len(self._stored[Topic.EVENTS]))

    async def spans(self, topic: Topic, partitions: Sequence[int]) -> Mapping[int, Span]:
        return {one: Span(start=self._stored[topic][one].start, end=self._stored[topic][one].end) for one in partitions}

    async def read(
        self, topic: Topic, partition: int, span: Span, *, limit: int
    ) -> AsyncIterator[Sequence[StoredRecord]]:
        records = [one for one in self._stored[topic][partition].records if span.start <= one.offset < span.end]
        for first in range(0, len(records), limit):
            yield records[first : first + limit]

    async def follow(self, offsets: Mapping[int, int]) -> None:
        self._following = dict(offsets)

    async def poll(self, *, limit: int) -> Mapping[int, Sequence[StoredRecord]] | None:
        polled: dict[int, Sequence[StoredRecord]] = {}
        for partition, offset in self._following.items():
            stored = self._stored[Topic.EVENTS][partition]
            if not stored.start <= offset <= stored.end:
                raise OutOfRange(frozenset({partition}))
            if found := [one for one in stored.records if one.offset >= offset][:limit]:
                polled[partition] = found
                self._following[partition] = found[-1].offset + 1
        return polled or None

    async def look(self) -> Mapping[int, Span]:
        return await self.spans(Topic.EVENTS, list(self._following))

    def _now(self) -> str:
        return _wire(BEGINNING + timedelta(seconds=len(self.events)))

    def _next(self, user_id: UUID) -> dict[str, Any]:
        record = self._records[user_id]
        return record | {"version": record["version"] + 1, "updated_at": self._now()}

    def _publish(self, name: str, user_id: UUID, record: dict[str, Any]) -> None:
        before = self._records.get(user_id, {})
        changes = {
            one: {"old": before.get(one), "new": record[one]}
            for one in CHANGEABLE
            if before.get(one) != record[one] and not (record.get("erased") and one in PERSONAL)
        }
        self._records[user_id] = record
        position = len(self.events) + 1
        event_id = UUID(int=0x0192D3C8_0000_7000_8000_000000000000 + position)
        headers = {
            "content-type": "application/json",
            "ce_specversion": "1.0",
            "ce_id": str(event_id),
            "ce_type": f"muster.{name}.v1",
            "ce_source": "/muster/users",
            "ce_subject": str(user_id),
            "ce_time": self._now(),
            "ce_dataschema": f"https://users.example.com/schemas/{name}.v1.json",
            "ce_sequence": f"{position:019}",
            "ce_userversion": str(record["version"]),
            "ce_correlationid": str(event_id),
            "ce_causationid": str(event_id),
        }
        event = StoredRecord(
            topic=Topic.EVENTS.value,
            partition=0,
            offset=position,
            key=str(user_id).encode(),
            value=json.dumps({"user": record, "changes": changes}).encode(),
            headers=tuple((one, value.encode()) for one, value in headers.items()),
        )
        self.events.append(event)
        if not self._losing:
            self._put_both(event)

    def _put_both(self, event: StoredRecord) -> None:
        user = json.loads(event.value or b"")["user"]
        gone = user["deleted_at"] is not None
        self._put(Topic.EVENTS, event.key, event.value, event.headers)
        self._put(Topic.SNAPSHOT, event.key, None if gone else json.dumps({"user": user}).encode(), event.headers)

    def _put(
        self, topic: Topic, key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...]
    ) -> None:
        number = zlib.crc32(key or b"") % len(self._stored[topic])
        stored = self._stored[topic][number]
        stored.records.append(
            StoredRecord(topic=topic.value, partition=number, offset=stored.end, key=key, value=value, headers=headers)
        )
        stored.end += 1


class _Feed:
    def __init__(self, users: MusterUsers) -> None:
        self._users = users

    async def between(self, user_id: UUID, *, after: int, before: int) -> Sequence[Event]:
        found: list[Event] = []
        for record in self._users.events:
            event = event_of(record, snapshot=False)
            if isinstance(event, Event) and event.user_id == user_id and after < event.version < before:
                found.append(event)
        return found


def _wire(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
