"""Server-Sent Events (HTML Living Standard, section 9.2): the log as it goes on, for many listeners at once."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Final

import orjson
from fastapi import Request as HttpRequest
from starlette.responses import StreamingResponse
from starlette.types import Send

from events.archive import Archive, Wanted
from events.envelope import Origin
from events.histories import Entry
from events.recording import Position
from identity.access_tokens import Caller
from identity.caller import GATE
from query_api.cloud_events import cloud_event_of
from query_api.tail import Tail
from runtime.failures import Overloaded, Unavailable
from runtime.logs import logger
from runtime.problems import Problem

# seconds without an event after which a comment shows that the stream lives, and its id how far it is
HEARTBEAT: Final = 15.0
# how often who listens is looked after: whether they still may, and whether this process stops
LOOK: Final = 1.0
MAX_LISTENERS: Final = 1_000
# Events that are read at once for who is far behind, and bytes that are sent in one piece: what a slow listener has in
# memory is no more than that.
PAGE: Final = 50
PIECE: Final = 32_768
# milliseconds until a client comes back
RECONNECT: Final = b"retry: 1000\n\n"

log = logger(__name__)


class Listening:
    """Gives each listener a stream of its own, however fast it is. Raises what Archive and Tail raise."""

    def __init__(self, archive: Archive, *, origin: Origin, slow_after: float, stopping: Callable[[], bool]) -> None:
        self._archive = archive
        self._origin = origin
        self._slow_after = slow_after
        self._stopping = stopping
        self._tail = Tail(archive, self._framed)

    async def stream(
        self, http: HttpRequest, caller: Caller, wanted: Wanted, *, after: Position, until: Position | None
    ) -> StreamingResponse:
        """Everything wanted after a position, then what comes. Raises a 503 problem when too many listen already."""
        if self._tail.listeners >= MAX_LISTENERS:
            detail = f"{MAX_LISTENERS} listen to this process already: try another, or read pages."
            raise Problem(503, "too_many_listeners", detail, headers={"Retry-After": "5"})
        # what cannot be read at all is told before the stream begins
        await self._archive.head()
        pieces = self._pieces(http, caller, wanted, after, until)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return _CutOffWhenSlow(pieces, headers, self._slow_after)

    async def close(self) -> None:
        await self._tail.close()

    async def _pieces(
        self, http: HttpRequest, caller: Caller, wanted: Wanted, position: Position, until: Position | None
    ) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        said = loop.time()
        try:
            async with self._tail.listening():
                yield RECONNECT
                while True:
                    frames, through = await self._next(wanted, position, until)
                    for piece in _joined(frames):
                        yield piece
                        said = loop.time()
                    behind, position = through > position, through
                    if until is not None and position >= until:
                        yield b": that is all\n" + _place(position)
                        return
                    if self._stopping():
                        yield b": this process stops, come back\n" + _place(position)
                        return
                    await GATE.still(http, caller)
                    if loop.time() - said >= HEARTBEAT:
                        yield b": nothing new\n" + _place(position)
                        said = loop.time()
                    if not behind:
                        await self._tail.moved(position, within=LOOK)
        except Problem:
            yield b": the token is not valid any more\n\n"
        except (Unavailable, Overloaded) as error:
            log.warning("a listener was sent away", error=str(error))
            yield b": the log cannot be read now, come back\n\n"

    async def _next(
        self, wanted: Wanted, position: Position, until: Position | None
    ) -> tuple[Sequence[bytes], Position]:
        kept = self._tail.after(position)
        if kept is None:
            feed = await self._archive.feed(wanted, after=position, until=until, limit=PAGE)
            return [self._framed(entry) for entry in feed.entries], feed.through
        end = kept.through if until is None else min(until, kept.through)
        return [one.frame for one in kept.events if one.entry.position <= end and wanted.takes(one.entry)], end

    def _framed(self, entry: Entry) -> bytes:
        event = cloud_event_of(entry, self._origin)
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (entry.position, event["type"].encode(), orjson.dumps(event))


def _joined(frames: Sequence[bytes]) -> Iterator[bytes]:
    """Whole events together, up to about PIECE bytes."""
    joined: list[bytes] = []
    for frame in frames:
        joined.append(frame)
        if sum(map(len, joined)) >= PIECE:
            yield b"".join(joined)
            joined.clear()
    if joined:
        yield b"".join(joined)


def _place(position: Position) -> bytes:
    """An id without data is no event, but it is where a client goes on that reconnects."""
    return b"id: %d\n\n" % position


class _CutOffWhenSlow(StreamingResponse):
    """Ends for a listener who takes nothing for too long: what waits for them is no more than a piece."""

    def __init__(self, pieces: AsyncGenerator[bytes], headers: Mapping[str, str], slow_after: float) -> None:
        super().__init__(pieces, headers=headers, media_type="text/event-stream")
        self._pieces = pieces
        self._slow_after = slow_after

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    async with asyncio.timeout(self._slow_after):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            log.info("a listener was cut off: it takes nothing")
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
