"""Writes over HTTP beside a bare FastAPI endpoint, the CRUD guide's app and pure argon2id, in interleaved rounds.

    python benchmarks/write_path.py [--quick] [--json FILE]

Starts all it needs (`make bench` installs it); KAFKA_BOOTSTRAP_SERVERS names a broker to use instead of the embedded
one. log_path.py measures the log without HTTP.
"""

import argparse
import itertools
import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Literal

import psycopg
from beside import RELAY
from beside import beside as started_beside
from connection import request_template
from figures import Findings
from load import Load
from measuring import measured_load
from rival_processes import GUIDE, guide_authorization, guide_beside, hashing_rate
from run import add_common_options, main
from stack import Stack

from runtime.settings import Settings

CONNECTIONS = (32, 256)
# more of them bring the guide's app to a stand (rivals/crud_guide.py): what it does at 32 is its best
GUIDE_CONNECTIONS = 32
HASHED = "create with a password, 32 connections"
HASHED_ON_ALL = f"{HASHED}, HASHING_THREADS of all cores"
ARGON2 = "argon2id alone, all cores"
ARGON2_HERE = "argon2id alone, threads of a command API"
# more than any measurement can send: no two share an e-mail address or an idempotency key
NUMBERS = 10_000_000
OTHER_API = "command_api.2"
PASSWORD = "the right password of everybody"  # noqa: S105 - of made-up users

Kind = Literal["create", "update"]
KINDS: tuple[Kind, ...] = ("create", "update")


class WritePath:
    def __init__(self, stack: Stack, options: argparse.Namespace, findings: Findings) -> None:
        self._stack = stack
        self._seconds: float = options.seconds
        self._users: int = options.users
        self._keys: bool = not options.without_keys
        self._findings = findings
        # those of the command API as it is started here
        self._settings = Settings.model_validate({"database_url": stack.database_url, "muster_mode": "test"})
        self._ids = stack.folder / "ids"
        self._guide_ids = stack.folder / "guide-ids"
        self._first = itertools.count(NUMBERS, NUMBERS)

    def prepare(self) -> None:
        """Make the users that are updated, as many for the guide's app, which warms the processes too."""
        for process in ("command_api", GUIDE):
            load = self._load("create", process, connections=GUIDE_CONNECTIONS)
            measured_load(self._stack, replace(load, seconds=600, limit=self._users))
        self._stack.settle()
        with psycopg.connect(self._stack.database_url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE guide_users")
            ids = connection.execute("SELECT user_id FROM log.user_keys ORDER BY random()").fetchall()
            guide_ids = connection.execute("SELECT id FROM guide_users ORDER BY random()").fetchall()
        self._ids.write_text("\n".join(str(row[0]) for row in ids))
        self._guide_ids.write_text("\n".join(str(row[0]) for row in guide_ids))
        for kind in KINDS:
            measured_load(self._stack, replace(self._load(kind, "bare", connections=64), seconds=1))

    def measurements(self) -> list[Callable[[], None]]:
        measurements: list[Callable[[], None]] = []
        for kind in KINDS:
            for connections in CONNECTIONS:
                measurements += [
                    partial(self._over_http, kind, connections),
                    partial(self._beside, "bare", kind, connections),
                ]
            measurements.append(partial(self._beside, GUIDE, kind, GUIDE_CONNECTIONS))
        return [*measurements, self._hashed, self._hashed_on_all, self._argon2]

    def name_ratios(self) -> None:
        for kind, connections in itertools.product(KINDS, CONNECTIONS):
            name = over_http(kind, connections)
            self._findings.ratios += [
                (name, beside(GUIDE, kind, GUIDE_CONNECTIONS)),
                (name, beside("bare", kind, connections)),
            ]
        self._findings.ratios += [(HASHED, ARGON2), (HASHED, ARGON2_HERE), (HASHED_ON_ALL, ARGON2)]

    def _over_http(self, kind: Kind, connections: int) -> None:
        self._written(over_http(kind, connections), self._load(kind, "command_api", connections=connections))

    def _written(self, name: str, load: Load) -> None:
        figure = measured_load(self._stack, load)
        self._findings.remember_memory("under load", self._stack.memory())
        # the relay and the projector finish, so that they burden nothing else
        settled_after = self._stack.settle()
        self._findings.add(name, replace(figure, settled_after=settled_after))

    def _beside(self, rival: str, kind: Kind, connections: int) -> None:
        load = self._load(kind, rival, connections=connections)
        self._findings.add(beside(rival, kind, connections), measured_load(self._stack, load))

    def _hashed(self) -> None:
        self._written(HASHED, self._hashing(self._stack.ports["command_api"]))

    def _hashed_on_all(self) -> None:
        """By another command API, which takes all cores for it; the first one has nothing to do meanwhile."""
        settings = {"HASHING_THREADS": str(os.cpu_count() or 1)}
        with started_beside(self._stack, OTHER_API, settings=settings) as stack:
            self._written(HASHED_ON_ALL, self._hashing(stack.ports[OTHER_API]))

    def _hashing(self, port: int) -> Load:
        load = self._load("create", "command_api", connections=32)
        template = self._template("create", "command_api", {"password": PASSWORD})
        return replace(load, port=port, template=template)

    def _argon2(self) -> None:
        for name, threads in ((ARGON2, os.cpu_count() or 1), (ARGON2_HERE, self._settings.hashing_threads)):
            self._findings.add(name, hashing_rate(self._settings, threads=threads, seconds=self._seconds))

    def _load(self, kind: Kind, process: str, *, connections: int) -> Load:
        ids = self._guide_ids if process == GUIDE else self._ids
        return Load(
            port=self._stack.ports[process],
            template=self._template(kind, process),
            expected=201 if kind == "create" else 200,
            connections=connections,
            seconds=self._seconds,
            warm_up=self._seconds / 10,
            first=next(self._first),
            ids_file=str(ids) if kind == "update" else None,
        )

    def _template(self, kind: Kind, process: str, further: Mapping[str, str] | None = None) -> str:
        """The same body for all; the guide's app, which knows no merge patch and no keys, gets it by PUT."""
        headers = {
            **(guide_authorization() if process == GUIDE else self._stack.authorization),
            "content-type": "application/json",
        }
        if self._keys and process != GUIDE:
            headers["idempotency-key"] = "key-%(n)012d"
        if kind == "update":
            if process != GUIDE:
                headers["content-type"] = "application/merge-patch+json"
            return request_template(
                "PUT" if process == GUIDE else "PATCH",
                "/users/%(id)s",
                headers=headers,
                body=json.dumps({"display_name": "Name %(n)012d"}),
            )
        body = {
            "email": "load-%(n)012d@example.com",
            "display_name": "Load %(n)012d",
            "roles": ["user"],
            "attributes": {"team": "engines", "floor": 3},
        }
        return request_template("POST", "/users", headers=headers, body=json.dumps({**body, **(further or {})}))


@contextmanager
def guide_and_relay(stack: Stack) -> Generator[Stack]:
    """As docs/performance.md advises for the rate: a relay of its own, which takes no core from the command API."""
    with started_beside(stack, RELAY) as relayed, guide_beside(relayed) as whole:
        yield whole


def over_http(kind: Kind, connections: int) -> str:
    return f"{kind}, {connections} connections"


def beside(rival: str, kind: Kind, connections: int) -> str:
    return f"{rival} {kind}, {connections} connections"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Muster's writes over HTTP: throughput, latency, memory.")
    parser.add_argument("--users", type=int, default=20_000, help="how many are updated in turn (%(default)s)")
    parser.add_argument("--without-keys", action="store_true", help="send no Idempotency-Key")
    add_common_options(parser)
    main(
        "Writes over HTTP",
        parser,
        WritePath,
        quick={"users": 2000},
        rivals=guide_and_relay,
        settings_of_all={"RELAY": "false"},
    )
