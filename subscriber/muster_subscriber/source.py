from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from muster_subscriber.decoding import Record


class Topic(Enum):
    EVENTS = "events"
    SNAPSHOT = "snapshot"


class Away(Exception):
    """The broker does not answer, or not in time; it is asked again."""


class OutOfRange(Exception):
    """Partitions of a topic do not have the offsets that were to be read: it was truncated, or made anew."""

    def __init__(self, partitions: frozenset[int]) -> None:
        super().__init__(f"partitions {sorted(partitions)}")
        self.partitions = partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The offsets that a partition holds: from `start` to before `end`."""

    start: int
    end: int


class Source(Protocol):
    """The two topics, which have the same partitions. Everything raises Away."""

    def opened(self) -> AbstractAsyncContextManager[None]: ...

    async def partitions(self) -> Sequence[int]: ...

    async def spans(self, topic: Topic, partitions: Sequence[int]) -> Mapping[int, Span]: ...

    def read(self, topic: Topic, partition: int, span: Span, *, limit: int) -> AsyncIterator[Sequence[Record]]:
        """What a partition holds of a span, in order, up to `limit` records at a time. Raises OutOfRange."""
        ...

    async def follow(self, offsets: Mapping[int, int]) -> None:
        """Read these partitions of the events topic from these offsets on."""
        ...

    async def poll(self, *, limit: int) -> Mapping[int, Sequence[Record]] | None:
        """The next records of what is followed, maybe none yet; None when there will be no more. Raises OutOfRange."""
        ...

    async def look(self) -> Mapping[int, Span]:
        """What the partitions that are followed hold now."""
        ...
