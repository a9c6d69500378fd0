"""How soon a write is readable: POST at a steady rate, and as each is acknowledged, GET with its Min-Position.

A process of its own: reads a Freshness as JSON from stdin, writes a Fresh to stdout.
"""

import asyncio
import gc
import json
import sys
import time
from dataclasses import asdict, dataclass

import uvloop
from connection import Connection, Lost, filled, header
from load import GRACE, quantile

CONNECTIONS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """`create` and `read` are request templates; `read` has `%(position)s` besides."""

    command_port: int
    query_port: int
    create: str
    read: str
    first: int
    rate: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """Milliseconds: `p50` and `p99` from the acknowledged POST to the answered GET, `posted_*` of the POST alone."""

    count: int
    rate: float
    p50: float
    p99: float
    worst: float
    posted_p50: float
    posted_p99: float


class _Pool:
    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: asyncio.Queue[Connection] = asyncio.Queue()
        self._all: list[Connection] = []
        self._waiting: dict[Connection, asyncio.Future[tuple[int, bytes]]] = {}

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(
                lambda: Connection(self._answered, self._lost), "127.0.0.1", self._port
            )
            self._all.append(connection)
            self._idle.put_nowait(connection)

    async def ask(self, request: bytes, *, expected: int) -> bytes:
        connection = await self._idle.get()
        answer = self._waiting[connection] = asyncio.get_running_loop().create_future()
        connection.send(request)
        status, head = await answer
        self._idle.put_nowait(connection)
        if status != expected:
            raise Lost(f"{status} instead of {expected}")
        return head

    def close(self) -> None:
        for connection in self._all:
            connection.close()

    def _answered(self, connection: Connection, status: int, head: bytes) -> None:
        self._waiting.pop(connection).set_result((status, head))

    def _lost(self, error: Exception) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)


async def measured(asked: Freshness) -> Fresh:
    commands, queries = _Pool(asked.command_port), _Pool(asked.query_port)
    await commands.open()
    await queries.open()
    posted: list[float] = []
    fresh: list[float] = []

    async def one(n: int) -> None:
        sent = time.perf_counter()
        head = await commands.ask(filled(asked.create, n=n, user_id=""), expected=201)
        acknowledged = time.perf_counter()
        values = {"id": header(head, "location").rpartition("/")[2], "position": header(head, "event-position")}
        await queries.ask((asked.read % values).encode(), expected=200)
        posted.append(acknowledged - sent)
        fresh.append(time.perf_counter() - acknowledged)

    began = time.perf_counter()
    async with asyncio.timeout(asked.seconds + GRACE), asyncio.TaskGroup() as group:
        for i in range(int(asked.rate * asked.seconds)):
            await asyncio.sleep(max(0.0, began + i / asked.rate - time.perf_counter()))
            group.create_task(one(asked.first + i))
    seconds = time.perf_counter() - began
    commands.close()
    queries.close()
    posted.sort()
    fresh.sort()
    return Fresh(
        count=len(fresh),
        rate=len(fresh) / seconds,
        p50=quantile(fresh, 0.5) * 1000,
        p99=quantile(fresh, 0.99) * 1000,
        worst=quantile(fresh, 1.0) * 1000,
        posted_p50=quantile(posted, 0.5) * 1000,
        posted_p99=quantile(posted, 0.99) * 1000,
    )


async def _main() -> None:
    json.dump(asdict(await measured(Freshness(**json.load(sys.stdin)))), sys.stdout)


if __name__ == "__main__":
    gc.disable()
    uvloop.run(_main())
