"""Writes over HTTP and the log alone, beside a bare FastAPI endpoint and pgbench, in interleaved rounds.

    python benchmarks/write_path.py [--quick] [--json FILE]

Starts all it needs; KAFKA_BOOTSTRAP_SERVERS names a broker to use instead of the embedded one.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import psycopg
from connection import request_template
from figures import Figure, Findings
from freshness import Freshness
from load import Load
from log_alone import LogLoad
from measuring import measured_freshness, measured_load, measured_log
from pgbench import CLIENTS, Pgbench
from run import add_common_options, main
from stack import Stack

PGBENCH = f"pgbench, {CLIENTS} clients"
CONNECTIONS = (32, 256)
CALLERS = (64, 1000)
# more than any measurement can send: no two share an e-mail address or an idempotency key
NUMBERS = 10_000_000

Kind = Literal["create", "update"]
KINDS: tuple[Kind, ...] = ("create", "update")


class WritePath:
    def __init__(self, stack: Stack, options: argparse.Namespace, findings: Findings) -> None:
        self._stack = stack
        self._seconds: float = options.seconds
        self._users: int = options.users
        self._rate: float = options.rate
        self._keys: bool = not options.without_keys
        self._findings = findings
        self._pgbench = Pgbench(stack.log_url, stack.folder)
        self._ids = stack.folder / "ids"
        self._first = itertools.count(NUMBERS, NUMBERS)

    def prepare(self) -> None:
        """Make the users that are updated, which warms the processes too."""
        creations = self._load("create", self._stack.ports["command_api"], connections=64)
        measured_load(self._stack, replace(creations, seconds=300, limit=self._users))
        self._stack.settle()
        with psycopg.connect(self._stack.database_url) as connection:
            ids = connection.execute("SELECT user_id FROM log.user_keys ORDER BY random()").fetchall()
        self._ids.write_text("\n".join(str(row[0]) for row in ids))
        for kind in KINDS:
            measured_load(self._stack, replace(self._load(kind, self._stack.ports["bare"], connections=64), seconds=1))

    def measurements(self) -> list[Callable[[], None]]:
        measurements: list[Callable[[], None]] = []
        for kind, connections in itertools.product(KINDS, CONNECTIONS):
            measurements += [
                partial(self._over_http, kind, connections),
                partial(self._bare, kind, connections),
            ]
        measurements += [self._freshness, self._insert]
        measurements += [partial(self._log, kind, callers) for kind, callers in itertools.product(KINDS, CALLERS)]
        return measurements

    def name_ratios(self) -> None:
        for kind, connections in itertools.product(KINDS, CONNECTIONS):
            self._findings.ratios.append((over_http(kind, connections), bare(kind, connections)))
        for kind, connections in itertools.product(KINDS, CONNECTIONS):
            self._findings.ratios.append((over_http(kind, connections), PGBENCH))
        for kind, callers in itertools.product(KINDS, CALLERS):
            self._findings.ratios.append((log_alone(kind, callers), PGBENCH))

    def _over_http(self, kind: Kind, connections: int) -> None:
        figure = measured_load(self._stack, self._load(kind, self._stack.ports["command_api"], connections=connections))
        self._findings.remember_memory("under load", self._stack.memory())
        # the relay and the projector finish, so that they burden nothing else
        settled_after = self._stack.settle()
        self._findings.add(over_http(kind, connections), replace(figure, settled_after=settled_after))

    def _bare(self, kind: Kind, connections: int) -> None:
        load = self._load(kind, self._stack.ports["bare"], connections=connections)
        self._findings.add(bare(kind, connections), measured_load(self._stack, load))

    def _freshness(self) -> None:
        read = request_template(
            "GET",
            "/users/%(id)s",
            headers={**self._stack.authorization, "min-position": "%(position)s", "prefer": "wait=10"},
        )
        posted, fresh = measured_freshness(
            Freshness(
                command_port=self._stack.ports["command_api"],
                query_port=self._stack.ports["query_api"],
                create=self._template("create"),
                read=read,
                first=next(self._first),
                rate=self._rate,
                seconds=self._seconds,
            )
        )
        self._findings.add(f"POST at {self._rate:g}/s", posted)
        self._findings.add("  from its answer to readable", fresh)

    def _insert(self) -> None:
        inserted = self._pgbench.run(self._seconds)
        self._findings.add(PGBENCH, Figure(rate=inserted.rate, p50=inserted.mean))

    def _log(self, kind: Kind, callers: int) -> None:
        asked = LogLoad(
            database_url=self._stack.log_writer_url,
            kind=kind,
            callers=callers,
            seconds=self._seconds,
            first=next(self._first),
        )
        self._findings.add(log_alone(kind, callers), measured_log(self._stack, asked))

    def _load(self, kind: Kind, port: int, *, connections: int) -> Load:
        return Load(
            port=port,
            template=self._template(kind),
            expected=201 if kind == "create" else 200,
            connections=connections,
            seconds=self._seconds,
            warm_up=self._seconds / 10,
            first=next(self._first),
            ids_file=str(self._ids) if kind == "update" else None,
        )

    def _template(self, kind: Kind) -> str:
        headers = {**self._stack.authorization, "content-type": "application/json"}
        if self._keys:
            headers["idempotency-key"] = "key-%(n)012d"
        if kind == "update":
            headers["content-type"] = "application/merge-patch+json"
            return request_template(
                "PATCH", "/users/%(id)s", headers=headers, body=json.dumps({"display_name": "Name %(n)012d"})
            )
        body = {
            "email": "load-%(n)012d@example.com",
            "display_name": "Load %(n)012d",
            "roles": ["user"],
            "attributes": {"team": "engines", "floor": 3},
        }
        return request_template("POST", "/users", headers=headers, body=json.dumps(body))


def over_http(kind: Kind, connections: int) -> str:
    return f"{kind}, {connections} connections"


def bare(kind: Kind, connections: int) -> str:
    return f"bare {kind}, {connections} connections"


def log_alone(kind: Kind, callers: int) -> str:
    return f"log alone, {kind}, {callers} callers"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Muster's write path: throughput, latency, freshness, memory.")
    parser.add_argument("--users", type=int, default=20_000, help="how many are updated in turn (%(default)s)")
    parser.add_argument("--rate", type=float, default=200, help="POSTs/s while freshness is measured (%(default)s)")
    parser.add_argument("--without-keys", action="store_true", help="send no Idempotency-Key")
    add_common_options(parser)
    main("Write path", parser, WritePath, quick={"users": 2000})
