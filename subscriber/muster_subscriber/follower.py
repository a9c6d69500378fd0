"""One partition, followed: records in, changes out. Which broker they come from is somebody else's business."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol
from uuid import UUID

from muster_subscriber.application import Application
from muster_subscriber.bookmarks import Bookmark, Phase, Place
from muster_subscriber.contract import Change, Event, Kind, Poison
from muster_subscriber.decoding import Ignored, Record, Unreadable, event_of, identity_of, position_of


class Poisoned(Exception):
    """A record cannot be read, and nobody said what is to be done with it."""

    def __init__(self, poison: Poison) -> None:
        super().__init__(f"{poison.topic}-{poison.partition} at offset {poison.offset}: {poison.reason}")
        self.poison = poison


class Lost(Exception):
    """Versions of a user are neither in the topic nor to be had from the feed."""

    def __init__(self, user_id: UUID, versions: range) -> None:
        super().__init__(f"user {user_id}: versions {versions.start} to {versions.stop - 1}")
        self.user_id = user_id
        self.versions = versions


class MissingEvents(Protocol):
    """Where events come from that the topic lost."""

    async def between(self, user_id: UUID, *, after: int, before: int) -> Sequence[Event]:
        """A user's events of the versions between these two, in order, as far as they can be had."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    on_poison: Literal["raise", "deliver"] = "raise"
    strict: bool = False


@dataclass(slots=True, kw_only=True)
class Counts:
    """What a subscription has seen since it began."""

    delivered: int = 0
    duplicates: int = 0
    gaps: int = 0
    fetched: int = 0
    missed: int = 0
    poison: int = 0
    foreign: int = 0
    samples: int = 0
    bootstraps: int = 0
    lost_places: int = 0
    retries: int = 0


@dataclass(slots=True)
class Bootstrap:
    """Who was met in a bootstrap, up to which version they were deleted, and up to which position it came."""

    reached: int = 0
    _met: set[bytes] = field(default_factory=set[bytes])
    _buried: dict[bytes, int] = field(default_factory=dict[bytes, int])

    def note(self, event: Event) -> None:
        key = event.user_id.bytes
        self.reached = max(self.reached, event.position)
        if event.user is None or event.kind in {Kind.DELETED, Kind.ERASED}:
            self._buried[key] = max(event.version, self._buried.get(key, 0))
            self._met.discard(key)
        elif event.version > self._buried.get(key, 0):
            self._met.add(key)

    def buried(self, user_id: UUID) -> int:
        return self._buried.get(user_id.bytes, 0)

    def lives(self, user_id: UUID) -> bool:
        return user_id.bytes in self._met


@dataclass(slots=True, kw_only=True)
class Taken:
    """What became of some records. `stop` comes after the changes."""

    before: str | None
    changes: list[Change] = field(default_factory=list[Change])
    poison: list[Poison] = field(default_factory=list[Poison])
    stop: Poisoned | Lost | None = None


class Follower:
    """Guards each user's versions against what the application holds, which it asks for: it remembers nobody."""

    def __init__(
        self,
        partition: int,
        stored: str | None,
        application: Application,
        feed: MissingEvents | None,
        policy: Policy,
        counts: Counts,
    ) -> None:
        self.partition = partition
        self.place = Place() if stored is None else Place.parse(stored)
        self._stored = stored
        self._application = application
        self._feed = feed
        self._policy = policy
        self._counts = counts
        self._position = 0

    def enter(self, phase: Phase, offset: int) -> None:
        self.place = replace(self.place, phase=phase, offset=offset, start=offset, last=None)

    def wait_for_all(self) -> None:
        """The topics are being filled anew: nobody is gone before they have come to where this has been."""
        self.place = replace(self.place, until=self.place.position)

    def settle(self) -> None:
        """The bootstrap is done: from here on, events are followed."""
        self.place = replace(self.place, phase=Phase.FOLLOWING, until=0)

    def goes_back(self, records: Sequence[Record]) -> bool:
        """Whether these begin before what came last: in another topic of the name, or with what was held back."""
        found = next((position for record in records if (position := position_of(record)) is not None), None)
        return found is not None and found <= self._position

    async def take(
        self, records: Sequence[Record], bootstrap: Bootstrap | None = None, *, snapshot: bool = False
    ) -> Taken:
        taken = Taken(before=self._stored)
        read = [(record, _read(record, snapshot=snapshot)) for record in records if record.offset >= self.place.offset]
        ids = list({found.user_id for _, found in read if isinstance(found, Event)})
        versions = dict(await self._application.held(ids)) if ids else {}
        for record, found in read:
            before = self.place
            position = max(before.position, position_of(record) or 0)
            after = replace(before, offset=record.offset + 1, last=identity_of(record), position=position)
            match found:
                case Ignored.FOREIGN:
                    self._counts.foreign += 1
                case Ignored.SAMPLE:
                    self._counts.samples += 1
                case Poison():
                    self._counts.poison += 1
                    if self._policy.on_poison == "raise":
                        taken.stop = Poisoned(found)
                        break
                    taken.poison.append(found)
                case Event():
                    self._position = max(self._position, found.position)
                    wanted = await self._wanted(found, versions, bootstrap)
                    if (lost := next((missed for _, missed in wanted if missed), None)) is not None:
                        if self._policy.strict:
                            taken.stop = Lost(found.user_id, lost)
                            break
                        self._counts.missed += sum(len(missed) for _, missed in wanted)
                    for event, missed in wanted:
                        # a fetched one leaves the record to be read again
                        bookmark = self.mark(after if event is found else before)
                        taken.changes.append(Change.of(event, bookmark=bookmark, missed=missed))
                    self._counts.delivered += len(wanted)
            self.place = replace(after, number=self.place.number)
        return taken

    async def gone(self, user_ids: Sequence[UUID]) -> Taken:
        """Tell the application of users whom the topics do not know any more."""
        taken = Taken(before=self._stored)
        for user_id, version in (await self._application.held(user_ids)).items():
            event = Event(kind=Kind.GONE, user_id=user_id, version=version)
            taken.changes.append(Change.of(event, bookmark=self.mark(self.place), missed=range(0)))
        self._counts.delivered += len(taken.changes)
        return taken

    def mark(self, place: Place) -> Bookmark:
        """The bookmark that follows the last one."""
        self.place = replace(place, number=self.place.number + 1)
        bookmark = Bookmark(partition=self.partition, before=self._stored, after=self.place.text)
        self._stored = bookmark.after
        return bookmark

    def mark_rest(self) -> Bookmark | None:
        """The bookmark behind what brought nothing, if there was any."""
        return None if self._stored == self.place.text else self.mark(self.place)

    async def _wanted(
        self, event: Event, versions: dict[UUID, int], bootstrap: Bootstrap | None
    ) -> list[tuple[Event, range]]:
        """What an event brings the application, with what was lost before each: it may need others first."""
        held = versions.get(event.user_id)
        floor = held or 0
        if bootstrap is not None:
            floor = max(floor, bootstrap.buried(event.user_id))
            bootstrap.note(event)
        if event.version <= floor:
            self._counts.duplicates += 1
            return []
        if event.user is None and held is None:
            return []
        wanted: list[tuple[Event, range]] = []
        # before a bootstrap has come to its end, who is not held begins with whatever comes first
        if event.version > floor + 1 and not (bootstrap is not None and held is None):
            self._counts.gaps += 1
            for found in await self._fetched(event, floor):
                wanted.append((found, range(floor + 1, found.version)))
                floor = found.version
            wanted.append((event, range(floor + 1, event.version)))
        else:
            wanted.append((event, range(0)))
        versions[event.user_id] = event.version
        return wanted

    async def _fetched(self, event: Event, floor: int) -> list[Event]:
        if self._feed is None:
            return []
        fetched: list[Event] = []
        for found in await self._feed.between(event.user_id, after=floor, before=event.version):
            if floor < found.version < event.version:
                fetched.append(found)
                floor = found.version
        self._counts.fetched += len(fetched)
        return fetched


def _read(record: Record, *, snapshot: bool) -> Event | Ignored | Poison:
    try:
        return event_of(record, snapshot=snapshot)
    except Unreadable as error:
        return Poison(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=str(error),
            key=record.key,
            value=record.value,
            headers=tuple(record.headers),
        )
