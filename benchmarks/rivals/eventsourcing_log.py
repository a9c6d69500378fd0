"""Appending with the library `eventsourcing`: threads that change an aggregate each and save it, again and again.

A process of its own: reads a LibraryLog as JSON from stdin, writes a LibraryLogged to stdout.
"""

import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryLog:
    """`environment` is the library's own; each event carries `record` and `changes`, unencrypted."""

    environment: Mapping[str, str]
    record: Mapping[str, Any]
    changes: Mapping[str, Any]
    threads: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryLogged:
    """Latencies in milliseconds; `cpu` is the share of one core that this process took."""

    count: int
    rate: float
    p50: float
    p99: float
    cpu: float


class Account(Aggregate):
    """An aggregate whose every event has its whole record and what changed of it, as Muster's have."""

    @event("Opened")
    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = record

    @event("Changed")
    def change(self, record: Mapping[str, Any], changes: Mapping[str, Any]) -> None:  # noqa: ARG002 - kept in the event
        self.record = record


class Accounts(Application):
    pass


def logged(asked: LibraryLog) -> LibraryLogged:
    application = Accounts(env=dict(asked.environment))
    latencies: list[float] = []
    failures: list[Exception] = []
    cpu, began = time.process_time(), time.perf_counter()
    deadline = began + asked.seconds

    def appending() -> None:
        account = Account(asked.record)
        try:
            application.save(account)
            while (sent := time.perf_counter()) < deadline:
                account.change(asked.record, asked.changes)
                application.save(account)
                latencies.append(time.perf_counter() - sent)
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits for this one
            failures.append(error)

    threads = [threading.Thread(target=appending) for _ in range(asked.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    cpu = (time.process_time() - cpu) / seconds
    application.close()
    if failures:
        raise failures[0]
    latencies.sort()
    return LibraryLogged(
        count=len(latencies),
        rate=len(latencies) / seconds,
        p50=latencies[len(latencies) // 2] * 1000,
        p99=latencies[int(len(latencies) * 0.99)] * 1000,
        cpu=cpu,
    )


if __name__ == "__main__":
    json.dump(asdict(logged(LibraryLog(**json.load(sys.stdin)))), sys.stdout)
