"""How soon a write is readable: POST at a steady rate, and as each is acknowledged, GET with its Min-Position.

A process of its own: reads a Freshness as JSON from stdin, writes a Fresh to stdout. It stands for callers on machines
of their own: where it may, it takes precedence over whatever else wants the processor.
"""

import asyncio
import gc
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import uvloop
from connection import Connection, Lost, filled, header
from load import GRACE, quantile

CONNECTIONS = 64
# raising one's own priority is root's right
NICENESS = -10


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
    """Milliseconds: `p50` and `p99` from the acknowledged POST to the answered GET, `posted_*` of the POST alone.

    `late_p99`: from when a POST was due to when it was sent. `cpu` is the share of one core that the client took.
    `sent`: each made user's id, and when its POST was sent, in seconds of a clock that all processes share.
    """

    count: int
    rate: float
    p50: float
    p99: float
    worst: float
    posted_p50: float
    posted_p99: float
    late_p99: float = 0.0
    cpu: float = 0.0
    sent: dict[str, float] = field(default_factory=dict[str, float])


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
    late: list[float] = []
    sent_at: dict[str, float] = {}

    async def one(n: int, due: float) -> None:
        sent = time.perf_counter()
        late.append(sent - due)
        head = await commands.ask(filled(asked.create, n=n, user_id=""), expected=201)
        acknowledged = time.perf_counter()
        values = {"id": header(head, "location").rpartition("/")[2], "position": header(head, "event-position")}
        await queries.ask((asked.read % values).encode(), expected=200)
        sent_at[values["id"]] = sent
        posted.append(acknowledged - sent)
        fresh.append(time.perf_counter() - acknowledged)

    cpu, began = time.process_time(), time.perf_counter()
    async with asyncio.timeout(asked.seconds + GRACE), asyncio.TaskGroup() as group:
        for i in range(int(asked.rate * asked.seconds)):
            due = began + i / asked.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(asked.first + i, due))
    seconds = time.perf_counter() - began
    cpu = (time.process_time() - cpu) / seconds
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
        late_p99=quantile(sorted(late), 0.99) * 1000,
        cpu=cpu,
        sent=sent_at,
    )


async def _main() -> None:
    json.dump(asdict(await measured(Freshness(**json.load(sys.stdin)))), sys.stdout)


if __name__ == "__main__":
    gc.disable()
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    uvloop.run(_main())
