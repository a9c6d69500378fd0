"""Reads over HTTP beside a bare FastAPI endpoint that answers constants, and the CRUD guide's app, interleaved.

    python benchmarks/read_path.py [--quick] [--users 1000000] [--json FILE]

Starts all it needs (`make bench` installs it). The users are put into the read model by its own SQL function, without
events, and copied from it into the guide's table.
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial

import httpx
import psycopg
from connection import request_template
from figures import Findings
from load import Load
from measuring import measured_load
from rival_processes import GUIDE, guide_authorization, guide_beside
from run import add_common_options, main
from seed import seed_read_model
from stack import Stack

from query_api.listing import Listing, cursor_after

QUERY, BARE = "query_api", "bare"
ANYWHERE = "page of 50, another each, 32"
CHANGED_LAST = "page of admins, changed last first, 32 connections"
PLACES = "SELECT created_at, id FROM read_model.users WHERE id = ANY(%s::uuid[]) ORDER BY random()"
# name, process, path, further headers, connections; the searched names have one owner each. At more connections the
# guide's app stands still (rivals/crud_guide.py). Requests for the same list that wait at the same moment share a
# query: those of "another each" share none.
READS: tuple[tuple[str, str, str, dict[str, str], int], ...] = (
    ("GET by id, 32 connections", QUERY, "/users/%(id)s", {}, 32),
    ("bare GET by id, 32 connections", BARE, "/users/%(id)s", {}, 32),
    ("guide GET by id, 32 connections", GUIDE, "/users/%(id)s", {}, 32),
    ("GET by id, 256 connections", QUERY, "/users/%(id)s", {}, 256),
    ("bare GET by id, 256 connections", BARE, "/users/%(id)s", {}, 256),
    ("GET by id with Min-Position, 32", QUERY, "/users/%(id)s", {"min-position": "0", "prefer": "wait=5"}, 32),
    ("first page of 50, 32 connections", QUERY, "/users", {}, 32),
    ("bare page of 50, 32 connections", BARE, "/users", {}, 32),
    ("guide first page of 50, 32 connections", GUIDE, "/users", {}, 32),
    ("first page of 10, 32 connections", QUERY, "/users?limit=10", {}, 32),
    ("page of admins, 32 connections", QUERY, "/users?role=admin&status=active", {}, 32),
    ("guide page of admins, 32 connections", GUIDE, "/users?role=admin&status=active", {}, 32),
    (CHANGED_LAST, QUERY, "/users?role=admin&status=active&sort=-updated_at", {}, 32),
    (f"guide {CHANGED_LAST}", GUIDE, "/users?role=admin&status=active&newest=true", {}, 32),
    ("search of one (q), 32 connections", QUERY, "/users?q=load%%20{searched:012d}", {}, 32),
    ("by e-mail, another each, 32", QUERY, "/users?email=load-%(n)012d%%40example.com", {}, 32),
    ("search (q), another each, 32", QUERY, "/users?q=load%%20%(n)012d", {}, 32),
    (ANYWHERE, QUERY, "/users?cursor=%(id)s", {}, 32),
)
RATIOS = (
    ("GET by id, 32 connections", "bare GET by id, 32 connections"),
    ("GET by id, 256 connections", "bare GET by id, 256 connections"),
    ("GET by id with Min-Position, 32", "bare GET by id, 32 connections"),
    ("first page of 50, 32 connections", "bare GET by id, 32 connections"),
    ("first page of 50, 32 connections", "bare page of 50, 32 connections"),
    ("first page of 10, 32 connections", "bare GET by id, 32 connections"),
    ("page of admins, 32 connections", "bare GET by id, 32 connections"),
    (CHANGED_LAST, "bare GET by id, 32 connections"),
    (CHANGED_LAST, "bare page of 50, 32 connections"),
    (CHANGED_LAST, f"guide {CHANGED_LAST}"),
    ("by e-mail, another each, 32", "bare GET by id, 32 connections"),
    (ANYWHERE, "bare GET by id, 32 connections"),
    (ANYWHERE, "bare page of 50, 32 connections"),
    ("page of admins, 32 connections", "bare page of 50, 32 connections"),
    ("search of one (q), 32 connections", "bare GET by id, 32 connections"),
    ("GET by id, 32 connections", "guide GET by id, 32 connections"),
    ("first page of 50, 32 connections", "guide first page of 50, 32 connections"),
    ("page of admins, 32 connections", "guide page of admins, 32 connections"),
)
TO_GUIDE = """
INSERT INTO guide_users (id, email, display_name, status, roles, attributes, created_at, updated_at)
SELECT id, email, display_name, status, roles, attributes, created_at, updated_at FROM read_model.users
WHERE deleted_at IS NULL AND email LIKE 'load-%'
"""


class ReadPath:
    def __init__(self, stack: Stack, options: argparse.Namespace, findings: Findings) -> None:
        self._stack = stack
        self._seconds: float = options.seconds
        self._users: int = options.users
        self._findings = findings
        self._ids = stack.folder / "ids"
        self._cursors = stack.folder / "cursors"
        self._authorization: Mapping[str, dict[str, str]] = {
            QUERY: stack.authorization,
            BARE: stack.authorization,
            GUIDE: guide_authorization(),
        }

    def prepare(self) -> None:
        ids = seed_read_model(self._stack.database_url, self._users)
        self._ids.write_text("\n".join(ids))
        with psycopg.connect(self._stack.database_url) as connection:
            places = connection.execute(PLACES, (ids[:5000],)).fetchall()
        first = Listing.model_validate({})
        cursors = [cursor_after(first, created_at, user_id) for created_at, user_id in places]
        self._cursors.write_text("\n".join(cursors))
        with psycopg.connect(self._stack.database_url, autocommit=True) as connection:
            connection.execute(TO_GUIDE)
            connection.execute("VACUUM ANALYZE guide_users")
        for path in (f"/users/{ids[0]}", "/users"):
            ours, bare = (self._size(process, path) for process in (QUERY, BARE))
            assert abs(ours - bare) < 0.05 * ours, (path, ours, bare)

    def measurements(self) -> list[Callable[[], None]]:
        return [partial(self._read, *read) for read in READS]

    def name_ratios(self) -> None:
        self._findings.ratios += RATIOS

    def _size(self, process: str, path: str) -> int:
        url = f"http://127.0.0.1:{self._stack.ports[process]}{path}"
        answer = httpx.get(url, headers=self._authorization[process], timeout=30, trust_env=False)
        return len(answer.raise_for_status().content)

    def _read(self, name: str, process: str, path: str, headers: dict[str, str], connections: int) -> None:
        headers = {**self._authorization[process], **headers}
        load = Load(
            port=self._stack.ports[process],
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
    parser.add_argument("--users", type=int, default=1_000_000, help="how many the read model holds (%(default)s)")
    add_common_options(parser)
    main("Reads over HTTP", parser, ReadPath, quick={"users": 20_000}, rivals=guide_beside)
