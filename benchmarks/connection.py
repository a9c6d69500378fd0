"""One HTTP/1.1 connection that costs its process next to nothing: the client must not be what a benchmark measures."""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import cast

HEAD_END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

Answered = Callable[["Connection", int, bytes], None]


class Lost(Exception):
    """The server closed a connection that was in use, or does not speak plain HTTP/1.1."""


class Connection(asyncio.Protocol):
    """Calls `answered` with status and head of each answer, whose body it skips; one request at a time."""

    def __init__(self, answered: Answered, lost: Callable[[Exception], None]) -> None:
        self._answered = answered
        self._lost = lost
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are not subclasses of asyncio's
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._lost(exc or Lost("the server closed the connection"))

    def send(self, request: bytes) -> None:
        assert self._transport is not None
        self._transport.write(request)

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def data_received(self, data: bytes) -> None:
        self._received = received = self._received + data if self._received else data
        end = received.find(HEAD_END)
        if end < 0:
            return
        head = received[:end]
        length = LENGTH.search(head)
        if length is None:
            self._lost(Lost(f"an answer without a length: {head[:200]!r}"))
            return
        if len(received) < end + len(HEAD_END) + int(length.group(1)):
            return
        self._received = b""
        self._answered(self, int(received[9:12]), head)


def request_template(method: str, path: str, *, headers: Mapping[str, str], body: str = "") -> str:
    """A request to be filled in with `%`: `%(n)012d` is its number, `%(id)s` a user's id; both are of fixed width."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"content-length: {len(filled(body, n=0, user_id=' ' * 36))}")
    return "\r\n".join([*lines, "", body])


def filled(template: str, *, n: int, user_id: str) -> bytes:
    return (template % {"n": n, "id": user_id}).encode()


def header(head: bytes, name: str) -> str:
    found = re.search(rb"\r\n" + re.escape(name.encode()) + rb": *([^\r]*)", head, re.IGNORECASE)
    if found is None:
        raise Lost(f"an answer without {name}: {head[:200]!r}")
    return found.group(1).decode()
