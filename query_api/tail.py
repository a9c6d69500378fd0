"""The end of the log, read and put into words once for everybody who listens to it."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from events.archive import Archive, Wanted
from events.histories import Entry
from events.keyring import WrongKey
from events.recording import Position
from runtime.failures import Overloaded, Unavailable
from runtime.fleeting import FORGOTTEN_WITHIN
from runtime.logs import logger

# seconds between two looks at the log while anybody listens, and after one that failed
POLL: Final = 0.05
RETRY: Final = 1.0
# events that are kept in memory for whoever is only a little behind, and for how long: they may be a person's who is
# erased meanwhile; read at once
KEPT: Final = 2_000
KEPT_FOR: Final = FORGOTTEN_WITHIN / 2
BATCH: Final = 500
EVERYTHING: Final = Wanted()

log = logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Framed:
    """An event, what is sent of it, and when it was read (time.monotonic)."""

    entry: Entry
    frame: bytes
    read_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The events of a stretch of the log, in order, up to the position `through`."""

    events: Sequence[Framed]
    through: Position


class Tail:
    """Follows the log while there are listeners; each of them takes what it has not had, at its own pace."""

    def __init__(self, archive: Archive, frame: Callable[[Entry], bytes]) -> None:
        self._archive = archive
        self._frame = frame
        self._events: deque[Framed] = deque(maxlen=KEPT)
        # what is kept is everything after `start` up to `end`
        self._start = self._end = Position(0)
        self._moved = asyncio.Event()
        self._listeners = 0
        self._following: asyncio.Task[None] | None = None

    @property
    def listeners(self) -> int:
        return self._listeners

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        """Keep the tail followed meanwhile. Raises Unavailable when the log cannot be read now."""
        head = await self._archive.head()
        if self._following is None:
            self._events.clear()
            self._start = self._end = head
            self._following = asyncio.create_task(self._follow())
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1
            if self._listeners == 0:
                self._leave()

    def after(self, position: Position) -> Stretch | None:
        """What is kept after a position: None when that begins before what is kept."""
        if position < self._start:
            return None
        if position >= self._end:
            return Stretch(events=(), through=position)
        # from the end: who listens lacks the last few
        lacking = list(takewhile(lambda event: event.entry.position > position, reversed(self._events)))
        return Stretch(events=lacking[::-1], through=self._end)

    async def moved(self, position: Position, *, within: float) -> None:
        """Return when there is something after a position, or after so many seconds."""
        if self._end > position:
            return
        try:
            async with asyncio.timeout(within):
                await self._moved.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
            self._following = None

    def _leave(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None
        self._events.clear()
        self._start = self._end

    async def _follow(self) -> None:
        while True:
            self._forget()
            try:
                feed = await self._archive.feed(EVERYTHING, after=self._end, until=None, limit=BATCH)
            except (Unavailable, Overloaded, WrongKey) as error:
                # listeners stay: they have lost nothing, and are told once the log can be read again
                log.warning("the tail of the log was not read", error=str(error))
                await asyncio.sleep(RETRY)
                continue
            except Exception:  # a fault of this code: it is tried again, and seen
                log.exception("the tail of the log was not read")
                await asyncio.sleep(RETRY)
                continue
            if feed.through > self._end:
                self._keep(feed.entries, feed.through)
            if feed.through >= feed.head:
                await asyncio.sleep(POLL)

    def _forget(self) -> None:
        before = time.monotonic() - KEPT_FOR
        while self._events and self._events[0].read_at < before:
            self._start = self._events.popleft().entry.position

    def _keep(self, entries: Sequence[Entry], through: Position) -> None:
        read_at = time.monotonic()
        for entry in entries:
            if len(self._events) == KEPT:
                self._start = self._events[0].entry.position
            self._events.append(Framed(entry=entry, frame=self._frame(entry), read_at=read_at))
        self._end = through
        # whoever waits now is woken; whoever comes later waits for the next
        self._moved.set()
        self._moved = asyncio.Event()
