"""Reads over HTTP beside a bare FastAPI endpoint that answers a constant record, in interleaved rounds.

    python benchmarks/read_path.py [--quick] [--json FILE]

Starts all it needs; the users are put into the read model by its own SQL function, without events.
"""

import argparse
from collections.abc import Callable
from functools import partial

import psycopg
from connection import request_template
from figures import Findings
from load import Load
from measuring import measured_load
from run import add_common_options, main
from seed import seed_read_model
from stack import Stack

from events.wire import time_to_wire
from query_api.listing import Listing, cursor_after

ANYWHERE = "page of 50, another each, 32"
# name, path, further headers, connections; the searched names have one owner each. Requests for the same list that wait
# at the same moment share a query: those of "another each" share none.
READS: tuple[tuple[str, str, dict[str, str], int], ...] = (
    ("GET by id, 32 connections", "/users/%(id)s", {}, 32),
    ("GET by id, 256 connections", "/users/%(id)s", {}, 256),
    ("GET by id with Min-Position, 32", "/users/%(id)s", {"min-position": "0", "prefer": "wait=5"}, 32),
    ("first page of 50, 32 connections", "/users", {}, 32),
    ("first page of 10, 32 connections", "/users?limit=10", {}, 32),
    ("page of admins, 32 connections", "/users?role=admin&status=active&sort=-updated_at", {}, 32),
    ("search of one (q), 32 connections", "/users?q=load%%20{searched:012d}", {}, 32),
    ("by e-mail, another each, 32", "/users?email=load-%(n)012d%%40example.com", {}, 32),
    ("search (q), another each, 32", "/users?q=load%%20%(n)012d", {}, 32),
    (ANYWHERE, "/users?cursor=%(id)s", {}, 32),
)
PLACES = "SELECT created_at, id FROM read_model.users WHERE id = ANY(%s::uuid[]) ORDER BY random()"
BARE = "bare GET, {} connections"
BARE_CONNECTIONS = (32, 256)


class ReadPath:
    def __init__(self, stack: Stack, options: argparse.Namespace, findings: Findings) -> None:
        self._stack = stack
        self._seconds: float = options.seconds
        self._users: int = options.users
        self._findings = findings
        self._ids = stack.folder / "ids"
        self._cursors = stack.folder / "cursors"

    def prepare(self) -> None:
        ids = seed_read_model(self._stack.database_url, self._users)
        self._ids.write_text("\n".join(ids))
        with psycopg.connect(self._stack.database_url) as connection:
            places = connection.execute(PLACES, (ids[:5000],)).fetchall()
        first = Listing.model_validate({})
        cursors = [cursor_after(first, time_to_wire(created_at), str(user_id)) for created_at, user_id in places]
        self._cursors.write_text("\n".join(cursors))

    def measurements(self) -> list[Callable[[], None]]:
        measurements: list[Callable[[], None]] = [
            partial(self._read, name, self._stack.ports["query_api"], path, headers, connections)
            for name, path, headers, connections in READS
        ]
        measurements += [
            partial(self._read, BARE.format(connections), self._stack.ports["bare"], "/users/%(id)s", {}, connections)
            for connections in BARE_CONNECTIONS
        ]
        return measurements

    def name_ratios(self) -> None:
        self._findings.ratios += [(name, BARE.format(connections)) for name, _, _, connections in READS]

    def _read(self, name: str, port: int, path: str, headers: dict[str, str], connections: int) -> None:
        headers = {**self._stack.authorization, **headers}
        load = Load(
            port=port,
            template=request_template("GET", path.format(searched=self._users // 2), headers=headers),
            expected=200,
            connections=connections,
            seconds=self._seconds,
            warm_up=self._seconds / 10,
            ids_file=str(self._cursors if name == ANYWHERE else self._ids),
        )
        self._findings.add(name, measured_load(self._stack, load))
        self._findings.remember_memory("under load", self._stack.memory())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Muster's read path: throughput, latency, memory.")
    parser.add_argument("--users", type=int, default=100_000, help="how many the read model holds (%(default)s)")
    add_common_options(parser)
    main("Read path", parser, ReadPath, quick={"users": 20_000})
