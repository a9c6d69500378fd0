"""Starts what Muster is measured against, each rival in a process of its own; `make bench` installs what they need."""

import secrets
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit

import jwt
import orjson
import psycopg
from clients import run_script
from figures import Figure
from psycopg import sql
from seed import user_numbered
from stack import FOLDER, READY_WITHIN, Stack

from events.record import record_of
from muster.embedded.ports import free_port
from muster.embedded.program import Program, plain_environment
from muster.failures import CannotRun
from muster.readiness import unreadiness
from runtime.ids import new_id
from runtime.settings import Settings

RIVALS = FOLDER / "rivals"
GUIDE = "guide"
LIBRARY_THREADS = 16
# what the guide's tokens are signed with
SECRET_KEY = secrets.token_hex(32)


@contextmanager
def guide_beside(stack: Stack) -> Generator[Stack]:
    """The CRUD guide's app, with a table of its own in the stack's database, as the port and process `guide`."""
    _installed("psycopg2")
    port = free_port(taken=stack.ports.values())
    program = Program(
        name=GUIDE,
        command=[sys.executable, str(RIVALS / "crud_guide.py"), str(port)],
        environment={
            **plain_environment(),
            "DATABASE_URL": stack.database_url.replace("postgresql://", "postgresql+psycopg2://", 1),
            "SECRET_KEY": SECRET_KEY,
        },
        directory=stack.folder,
        log=stack.folder / "guide.log",
    )
    process = program.start()
    try:
        deadline = time.monotonic() + READY_WITHIN
        while (wrong := unreadiness(f"http://127.0.0.1:{port}")) is not None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise CannotRun(f"the guide's app is not ready: {wrong}; {program.last_words()}")
            time.sleep(0.05)
        yield replace(stack, ports={**stack.ports, GUIDE: port}, pids={**stack.pids, GUIDE: process.pid})
    finally:
        # it has nothing to finish, and would wait for threads that wait for a connection
        process.kill()
        process.wait()


def guide_authorization() -> dict[str, str]:
    claims = {"sub": str(new_id()), "exp": datetime.now(UTC) + timedelta(days=1)}
    return {"authorization": f"Bearer {jwt.encode(claims, SECRET_KEY, algorithm='HS256')}"}


def hashing_rate(settings: Settings, *, threads: int, seconds: float) -> Figure:
    """Pure argon2id, with the parameters of the settings."""
    asked = {
        "time_cost": settings.argon2_time_cost,
        "memory_kib": settings.argon2_memory_kib,
        "parallelism": settings.argon2_parallelism,
        "threads": threads,
        "seconds": seconds,
    }
    return Figure(rate=run_script(RIVALS / "argon2_rate.py", asked)["rate"])


def library_log(database_url: str, *, seconds: float, functions: bool) -> Figure:
    """The library `eventsourcing` appending; with its SQL functions or, as it is by default, without."""
    with _library_database(database_url, functions=functions) as environment:
        logged = run_script(
            RIVALS / "eventsourcing_log.py",
            {"environment": environment, **_event(), "threads": LIBRARY_THREADS, "seconds": seconds},
        )
    return Figure(rate=logged["rate"], p50=logged["p50"], p99=logged["p99"], cores={"library": logged["cpu"]})


def library_runner(database_url: str, *, events: int, users: int) -> Figure:
    """The library's projection runner, in events/s; fills a log first, in a database of its own beside the given one.

    The role of `database_url` may create databases.
    """
    with _library_database(database_url, functions=False) as environment:
        projected = run_script(
            RIVALS / "eventsourcing_runner.py",
            {"environment": environment, **_event(), "events": events, "users": users},
        )
    return Figure(rate=projected["rate"], cores={"library": projected["cpu"]})


@contextmanager
def _library_database(database_url: str, *, functions: bool) -> Generator[dict[str, str]]:
    """An empty database, and the library's environment for it."""
    _installed("eventsourcing")
    parts = urlsplit(database_url)
    name = f"library_{secrets.token_hex(4)}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield {
                "PERSISTENCE_MODULE": "eventsourcing.postgres",
                "POSTGRES_DBNAME": name,
                "POSTGRES_HOST": parts.hostname or "",
                "POSTGRES_PORT": str(parts.port),
                "POSTGRES_USER": unquote(parts.username or ""),
                "POSTGRES_PASSWORD": unquote(parts.password or ""),
                "POSTGRES_POOL_SIZE": str(LIBRARY_THREADS),
                "POSTGRES_ENABLE_DB_FUNCTIONS": "y" if functions else "n",
            }
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _event() -> dict[str, Any]:
    """What an event of ours carries."""
    record = orjson.loads(orjson.dumps(record_of(user_numbered(1, new_id(), datetime.now(UTC)))))
    changes = {"display_name": {"old": "Name 000000000001", "new": record["display_name"]}}
    return {"record": record, "changes": changes}


def _installed(package: str) -> None:
    if find_spec(package) is None:
        raise CannotRun(f"{package} is missing: `make bench` installs it, or `pip install -r requirements-bench.lock`")
