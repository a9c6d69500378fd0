"""A flood of logins: they arrive as a Poisson process at a given rate, whether those before them are answered or not.

A process of its own: reads a Flood as JSON from stdin, writes a Flooded to stdout. Each connection has an address of
127.0.0.0/8 of its own, so that to the command API each is another guesser.
"""

import asyncio
import gc
import json
import os
import random
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from urllib.parse import urlencode

import uvloop
from connection import Answered, Connection, Lost
from load import GRACE, quantile

OK = 200
UNAUTHORIZED = 401
# how often arrivals are looked at: the loop's timers are in whole milliseconds
TICK = 0.001
# before the API's threads that hash, after everything that answers
NICENESS = 5
CONNECTING = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """`rate` a second for `seconds`, over `connections` from as many addresses or from one.

    Without a rate, `at_once` are under way at any time. `right` is the share of logins with the right password;
    account n of the `accounts` is `email % n`.
    """

    port: int
    rate: float | None
    at_once: int = 0
    seconds: float
    connections: int
    one_address: bool
    email: str
    accounts: int
    right: float
    password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flooded:
    """`statuses` are answers a second; `unsent` arrivals found every connection waiting, `lost` ones were not answered.

    Latencies are p50 and p99 in milliseconds from the arrival to the answer: `verified` of logins whose password was
    looked at, `refused` of those that were turned away. `cpu` is the share of one core that the client itself took.
    """

    offered: float
    statuses: dict[str, float] = field(default_factory=dict[str, float])
    unsent: int
    lost: int
    verified: dict[str, float]
    refused: dict[str, float]
    cpu: float


class _Guesser(Connection):
    def __init__(self, answered: Answered, address: str) -> None:
        super().__init__(answered, self._mark_lost)
        self.address = address
        self.lost = False

    def _mark_lost(self, _: Exception) -> None:
        self.lost = True


class _Wave:
    def __init__(self, flood: Flood) -> None:
        self._flood = flood
        self._idle: deque[_Guesser] = deque()
        self._arrived: dict[_Guesser, float] = {}
        self._reopening: set[asyncio.Task[None]] = set()
        self._deadline = 0.0
        self.began = 0.0
        self.offered = self.unsent = 0
        self.statuses: dict[int, int] = {}
        self.verified: list[float] = []
        self.refused: list[float] = []

    async def open(self) -> None:
        flood = self._flood
        # the first octets are those of the loopback network; .0 and .255 are left out
        addresses = [
            "127.9.9.9" if flood.one_address else f"127.{1 + n // 62_500}.{n // 250 % 250}.{1 + n % 250}"
            for n in range(flood.connections)
        ]
        for start in range(0, len(addresses), CONNECTING):
            await asyncio.gather(*map(self._connect, addresses[start : start + CONNECTING]))

    async def run(self) -> None:
        self.began = now = time.perf_counter()
        self._deadline = now + self._flood.seconds
        if self._flood.rate is None:
            for _ in range(self._flood.at_once):
                self._arrive(now)
            await asyncio.sleep(self._flood.seconds)
        else:
            await self._pace(now, self._flood.rate)
        while any(not guesser.lost for guesser in self._arrived):
            if time.perf_counter() > self._deadline + GRACE:
                raise Lost(f"{len(self._arrived)} logins without an answer")
            await asyncio.sleep(TICK)
        for guesser in self._idle:
            guesser.close()

    @property
    def lost(self) -> int:
        return len(self._arrived)

    async def _pace(self, now: float, rate: float) -> None:
        due = now + random.expovariate(rate)
        while now < self._deadline:
            while due <= now:
                self._arrive(due)
                due += random.expovariate(rate)
            await asyncio.sleep(TICK)
            now = time.perf_counter()

    async def _connect(self, address: str) -> None:
        _, guesser = await asyncio.get_running_loop().create_connection(
            lambda: _Guesser(self._answered, address), "127.0.0.1", self._flood.port, local_addr=(address, 0)
        )
        self._idle.append(guesser)

    def _arrive(self, at: float) -> None:
        self.offered += 1
        while self._idle:
            guesser = self._idle.popleft()
            if not guesser.lost:
                self._arrived[guesser] = at
                guesser.send(self._login())
                return
            # the server closes what was idle for a while
            task = asyncio.ensure_future(self._connect(guesser.address))
            self._reopening.add(task)
            task.add_done_callback(self._reopening.discard)
        self.unsent += 1

    def _answered(self, connection: Connection, status: int, _: bytes) -> None:
        assert isinstance(connection, _Guesser)
        now = time.perf_counter()
        took = now - self._arrived.pop(connection)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        (self.verified if status in {OK, UNAUTHORIZED} else self.refused).append(took)
        self._idle.append(connection)
        if self._flood.rate is None and now < self._deadline:
            self._arrive(now)

    def _login(self) -> bytes:
        flood = self._flood
        right = random.random() < flood.right
        fields = {
            "username": flood.email % random.randrange(flood.accounts),
            "password": flood.password if right else f"wrong {random.getrandbits(64):016x}",
        }
        body = urlencode(fields)
        return (
            f"POST /login HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-www-form-urlencoded\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}"
        ).encode()


async def flooded(flood: Flood) -> Flooded:
    wave = _Wave(flood)
    await wave.open()
    cpu = time.process_time()
    await wave.run()
    seconds = time.perf_counter() - wave.began
    cpu = (time.process_time() - cpu) / seconds
    return Flooded(
        offered=wave.offered / flood.seconds,
        # what waited at the end was answered later
        statuses={str(status): count / seconds for status, count in sorted(wave.statuses.items())},
        unsent=wave.unsent,
        lost=wave.lost,
        verified=_summary(wave.verified),
        refused=_summary(wave.refused),
        cpu=cpu,
    )


def _summary(latencies: list[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    return {"p50": quantile(ordered, 0.5) * 1000, "p99": quantile(ordered, 0.99) * 1000}


async def _main() -> None:
    os.nice(NICENESS)
    json.dump(asdict(await flooded(Flood(**json.load(sys.stdin)))), sys.stdout)


if __name__ == "__main__":
    gc.disable()
    uvloop.run(_main())
