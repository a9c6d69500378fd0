"""The log without HTTP beside pgbench and the library `eventsourcing`, in interleaved rounds.

    python benchmarks/log_path.py [--quick] [--json FILE]

Starts all it needs (`make bench` installs it). pgbench inserts the same event, one a transaction, and checks nothing.
"""

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from typing import Literal

from figures import Figure, Findings
from log_alone import LogLoad
from measuring import measured_log
from pgbench import CLIENTS, Pgbench
from rival_processes import LIBRARY_THREADS, library_log
from run import add_common_options, main
from stack import Stack

PGBENCH = f"pgbench, {CLIENTS} clients"
LIBRARY = f"library eventsourcing, {LIBRARY_THREADS} threads"
LIBRARY_FUNCTIONS = f"{LIBRARY}, SQL functions"
CALLERS = (64, 1000)
# more than any measurement can append: no two share an e-mail address or an idempotency key
NUMBERS = 10_000_000

Kind = Literal["create", "update"]
KINDS: tuple[Kind, ...] = ("create", "update")


class LogPath:
    def __init__(self, stack: Stack, options: argparse.Namespace, findings: Findings) -> None:
        self._stack = stack
        self._seconds: float = options.seconds
        self._findings = findings
        self._pgbench = Pgbench(stack.log_url, stack.folder)
        self._first = itertools.count(NUMBERS, NUMBERS)

    def prepare(self) -> None:
        """Nothing is kept warm: each caller is a process that has just started."""

    def measurements(self) -> list[Callable[[], None]]:
        return [
            *(partial(self._log, kind, callers) for kind, callers in itertools.product(KINDS, CALLERS)),
            self._insert,
            partial(self._library, LIBRARY, functions=False),
            partial(self._library, LIBRARY_FUNCTIONS, functions=True),
        ]

    def name_ratios(self) -> None:
        for rival in (PGBENCH, LIBRARY, LIBRARY_FUNCTIONS):
            for kind, callers in itertools.product(KINDS, CALLERS):
                self._findings.ratios.append((log_alone(kind, callers), rival))

    def _log(self, kind: Kind, callers: int) -> None:
        asked = LogLoad(
            database_url=self._stack.log_writer_url,
            kind=kind,
            callers=callers,
            seconds=self._seconds,
            first=next(self._first),
        )
        self._findings.add(log_alone(kind, callers), measured_log(self._stack, asked))

    def _insert(self) -> None:
        inserted = self._pgbench.run(self._seconds)
        self._findings.add(PGBENCH, Figure(rate=inserted.rate, p50=inserted.mean))

    def _library(self, name: str, *, functions: bool) -> None:
        self._findings.add(name, library_log(self._stack.log_url, seconds=self._seconds, functions=functions))


def log_alone(kind: Kind, callers: int) -> str:
    return f"log alone, {kind}, {callers} callers"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Muster's log: appended events a second.")
    add_common_options(parser)
    main("The log", parser, LogPath, quick={})
