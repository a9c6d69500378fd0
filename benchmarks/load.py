"""The load: a closed loop of connections, each sending its next request when the last is answered.

A process of its own: reads a Load as JSON from stdin, writes a Loaded to stdout.
"""

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop
from connection import Connection, filled

GRACE = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send where. Ends after `seconds`, or when `limit` requests are answered if that is earlier.

    Requests are numbered from `first`; `ids_file` has users' ids, a line each, taken in turn.
    """

    port: int
    template: str
    expected: int
    connections: int
    seconds: float
    warm_up: float = 0.0
    first: int = 0
    limit: int | None = None
    ids_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Latencies in milliseconds; `refused` counts answers by status other than the expected one.

    `cpu` is the share of one core that the client itself took.
    """

    count: int
    seconds: float
    rate: float
    p50: float
    p99: float
    worst: float
    cpu: float
    refused: dict[str, int] = field(default_factory=dict[str, int])


class _Loop:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._template = load.template
        self._ids = Path(load.ids_file).read_text().split() if load.ids_file else [""]
        self._next = load.first
        self._last = load.first + load.limit if load.limit is not None else sys.maxsize
        self._sent_at: dict[Connection, float] = {}
        self._begin = self._deadline = 0.0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.ended_at = 0.0

    async def run(self) -> Loaded:
        loop = asyncio.get_running_loop()
        connections: list[Connection] = []
        for _ in range(self._load.connections):
            _, connection = await loop.create_connection(
                lambda: Connection(self._answered, self._failed), "127.0.0.1", self._load.port
            )
            connections.append(connection)
        cpu = time.process_time()
        began = time.perf_counter()
        self._begin = began + self._load.warm_up
        self._deadline = self._begin + self._load.seconds
        for connection in connections:
            self._send(connection)
        async with asyncio.timeout(self._load.warm_up + self._load.seconds + GRACE):
            await self._done
        cpu = (time.process_time() - cpu) / (time.perf_counter() - began)
        for connection in connections:
            connection.close()
        return self._summary(cpu)

    def _send(self, connection: Connection) -> None:
        now = time.perf_counter()
        if now >= self._deadline or self._next >= self._last:
            self._sent_at.pop(connection, None)
            if not self._sent_at and not self._done.done():
                self._done.set_result(None)
            return
        n = self._next
        self._next += 1
        self._sent_at[connection] = now
        connection.send(filled(self._template, n=n, user_id=self._ids[n % len(self._ids)]))

    def _answered(self, connection: Connection, status: int, _: bytes) -> None:
        now = time.perf_counter()
        if self._begin <= now <= self._deadline:
            self.latencies.append(now - self._sent_at[connection])
            self.statuses[status] += 1
            self.ended_at = now
        self._send(connection)

    def _failed(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)

    def _summary(self, cpu: float) -> Loaded:
        latencies = sorted(self.latencies)
        # a limit that was reached ends the time too
        seconds = min(self._load.seconds, self.ended_at - self._begin)
        return Loaded(
            count=len(latencies),
            seconds=seconds,
            rate=self.statuses[self._load.expected] / seconds if latencies else 0.0,
            p50=quantile(latencies, 0.5) * 1000,
            p99=quantile(latencies, 0.99) * 1000,
            worst=quantile(latencies, 1.0) * 1000,
            cpu=cpu,
            refused={str(status): n for status, n in self.statuses.items() if status != self._load.expected},
        )


def quantile(ordered: list[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed; not-a-number without any."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def _main() -> None:
    loaded = await _Loop(Load(**json.load(sys.stdin))).run()
    json.dump(asdict(loaded), sys.stdout)


if __name__ == "__main__":
    gc.disable()
    uvloop.run(_main())
