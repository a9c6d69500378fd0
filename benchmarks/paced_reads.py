"""GETs at a steady rate, each latency counted from the moment when the request was due, sent by then or not.

A process of its own: reads a Pace as JSON from stdin, writes a Paced to stdout. It stands for callers on machines of
their own: where it may, it takes precedence over whatever else wants the processor.
"""

import gc
import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from connection import HEAD_END, Lost, filled, header, request_template
from load import quantile

THREADS = 4
OK = 200
# raising one's own priority is root's right
NICENESS = -10


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """`rate` a second for `warm_up` and `seconds`, of which the first are not counted.

    `ids_file` has users' ids, a line each, taken in turn.
    """

    port: int
    token: str
    ids_file: str
    rate: float
    warm_up: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """Milliseconds. `cpu` is the share of one core that the client itself took."""

    latencies: list[float]
    p50: float
    p99: float
    worst: float
    cpu: float


class _Reader(threading.Thread):
    """Sends every THREADS-th request, on a connection of its own."""

    def __init__(self, pace: Pace, ids: list[str], number: int, began: float) -> None:
        super().__init__(name=f"reader {number}")
        self._pace = pace
        self._ids = ids
        self._number = number
        self._began = began
        self.latencies: list[float] = []
        self.failed: Exception | None = None

    def run(self) -> None:
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - told by the thread that waits for this one
            self.failed = error

    def _read(self) -> None:
        pace = self._pace
        template = request_template("GET", "/users/%(id)s", headers={"authorization": f"Bearer {pace.token}"})
        connection = socket.create_connection(("127.0.0.1", pace.port), timeout=30)
        for n in range(self._number, int(pace.rate * (pace.warm_up + pace.seconds)), THREADS):
            after = n / pace.rate
            due = self._began + after
            time.sleep(max(0.0, due - time.perf_counter()))
            connection.sendall(filled(template, n=n, user_id=self._ids[n % len(self._ids)]))
            status = _status_of_answer(connection)
            if status != OK:
                raise Lost(f"{status} instead of {OK}")
            if after >= pace.warm_up:
                self.latencies.append(time.perf_counter() - due)
        connection.close()


def _status_of_answer(connection: socket.socket) -> int:
    """Of the whole answer: what is slow to arrive is slow."""
    received = b""
    while (end := received.find(HEAD_END)) < 0:
        received += _more(connection)
    missing = int(header(received[:end], "content-length")) - (len(received) - end - len(HEAD_END))
    while missing > 0:
        missing -= len(_more(connection))
    return int(received[9:12])


def _more(connection: socket.socket) -> bytes:
    if not (data := connection.recv(65536)):
        raise Lost("the server closed the connection")
    return data


def paced(pace: Pace) -> Paced:
    ids = Path(pace.ids_file).read_text().split()
    cpu, began = time.process_time(), time.perf_counter()
    readers = [_Reader(pace, ids, number, began) for number in range(THREADS)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
        if reader.failed is not None:
            raise reader.failed
    cpu = (time.process_time() - cpu) / (time.perf_counter() - began)
    latencies = sorted(latency * 1000 for reader in readers for latency in reader.latencies)
    return Paced(
        latencies=latencies,
        p50=quantile(latencies, 0.5),
        p99=quantile(latencies, 0.99),
        worst=quantile(latencies, 1.0),
        cpu=cpu,
    )


if __name__ == "__main__":
    gc.disable()
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    json.dump(asdict(paced(Pace(**json.load(sys.stdin)))), sys.stdout)
