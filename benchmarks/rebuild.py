"""`muster rebuild users` beside the limit: COPY of the same rows into the same table with its indexes.

    python benchmarks/rebuild.py [--users 100000 1000000] [--rounds 3] [--workers 2] [--json FILE]

Each population has a database of its own on one PostgreSQL. Rounds are interleaved, every second one backwards. The
rebuild is timed from the start of its process to its end; memory is the peak of it and of its workers.
"""

import argparse
import base64
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg
from figures import Figure, Findings, surroundings
from footprint import Memory, memory_of
from psycopg import sql
from run import say

from migrations.apply import migrate
from muster.database import as_role
from muster.embedded.postgres import EmbeddedPostgres
from muster.seeding import seed_log
from projector import table_ddl
from projector.copy_text import COLUMNS
from runtime.settings import Settings

ROLE = "muster_projector"
MUSTER = Path(sys.executable).parent / "muster"
BLOCK = 1 << 20
NAMES = ", ".join(column.name for column in COLUMNS)


@dataclass(slots=True, kw_only=True)
class Population:
    """Users in a database of their own; `rows` is what a rebuild made of them, as COPY takes it."""

    users: int
    owner_url: str
    url: str
    keys: dict[str, str]
    rows: Path
    workers: int
    peaks: dict[str, float] = field(default_factory=dict[str, float])

    def rebuild(self, findings: Findings | None) -> None:
        environment = {**os.environ, **self.keys, "MUSTER_MODE": "test", "DATABASE_URL": self.url}
        command = [str(MUSTER), "rebuild", "users", "--fresh", "--json", "--workers", str(self.workers)]
        began = time.perf_counter()
        with self.rows.with_suffix(".lines").open("w+") as told:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=told)
            while process.poll() is None:
                self._look(process.pid)
                time.sleep(0.05)
            seconds = time.perf_counter() - began
            told.seek(0)
            assert process.returncode == 0, told.read()
            lines = [json.loads(line) for line in told]
            assert process.stdout is not None
            done = json.loads(process.stdout.read())["result"]
        assert (done["users"], done["parked"]) == (self.users, 0)
        if findings is not None:
            copied = [line for line in lines if line["phase"] == "copying"][-1]
            findings.add(f"{self.users:,}: rebuild, users", Figure(rate=self.users / seconds))
            findings.add(f"{self.users:,}: rebuild, events", Figure(rate=done["events"] / seconds))
            findings.add(f"{self.users:,}: of that, copying, events", Figure(rate=copied["per_second"] or 0.0))

    def copy(self, findings: Findings) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in (*table_ddl.created(), *table_ddl.indexed().values()):
                connection.execute(statement)
            began = time.perf_counter()
            with (
                self.rows.open("rb") as rows,
                connection.cursor() as cursor,
                cursor.copy(f"COPY {table_ddl.NEXT} ({NAMES}) FROM STDIN".encode()) as copy,
            ):
                while block := rows.read(BLOCK):
                    copy.write(block)
            findings.add(f"{self.users:,}: COPY, users", Figure(rate=self.users / (time.perf_counter() - began)))
            connection.execute(f"DROP TABLE {table_ddl.NEXT_TABLES}".encode())

    def keep_rows(self) -> None:
        """In the order in which ids grow, as a dump has them."""
        query = f"COPY (SELECT {NAMES} FROM read_model.users ORDER BY id) TO STDOUT".encode()  # noqa: S608 - constants
        with (
            psycopg.connect(self.url) as connection,
            self.rows.open("wb") as rows,
            connection.cursor() as cursor,
            cursor.copy(query) as copy,
        ):
            for block in copy:
                rows.write(block)

    def _look(self, pid: int) -> None:
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            found = [memory_of(one).peak for one in (pid, *map(int, children))]
        except (FileNotFoundError, ProcessLookupError, KeyError):
            # one of them has just ended
            return
        self.peaks["rebuild"] = max(self.peaks.get("rebuild", 0.0), found[0])
        self.peaks["its workers, together"] = max(self.peaks.get("its workers, together", 0.0), sum(found[1:]))


def seeded(postgres: EmbeddedPostgres, folder: Path, users: int, *, password: str, workers: int) -> Population:
    name = f"users_{users}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    owner_url = postgres.url(name)
    migrate(owner_url, role_passwords={ROLE: password})
    keys = {name: base64.b64encode(secrets.token_bytes(32)).decode() for name in ("KEK", "EMAIL_INDEX_KEY")}
    settings = Settings(
        muster_mode="test", database_url=owner_url, kek=keys["KEK"], email_index_key=keys["EMAIL_INDEX_KEY"]
    )  # pyright: ignore[reportCallIssue, reportArgumentType]
    say(f"seeding {users:,} users")
    seed_log(settings, users, seed=1, workers=workers)
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE) log.events, log.user_keys")
    population = Population(
        users=users,
        owner_url=owner_url,
        url=as_role(owner_url, ROLE, password),
        keys=keys,
        rows=folder / name,
        workers=workers,
    )
    population.rebuild(None)
    population.keep_rows()
    return population


def measured(populations: list[Population], rounds: int, findings: Findings) -> None:
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        steps: list[Callable[[], None]] = []
        for population in populations:
            steps += [partial(population.copy, findings), partial(population.rebuild, findings)]
        for step in steps if number % 2 == 0 else reversed(steps):
            step()
    for population in populations:
        findings.ratios.append((f"{population.users:,}: rebuild, users", f"{population.users:,}: COPY, users"))
        moment = f"{population.users:,} users"
        findings.remember_memory(moment, {name: Memory(rss=peak, peak=peak) for name, peak in population.peaks.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken over these (%(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    options = parser.parse_args()
    settings = {name: getattr(options, name) for name in ("users", "rounds", "workers")}
    with tempfile.TemporaryDirectory(prefix="muster-benchmark-", dir=options.folder) as name:
        folder = Path(name)
        with EmbeddedPostgres(folder / "postgres") as postgres:
            findings = Findings(
                title="Rebuild", settings=settings, where=surroundings(postgres.url(), broker="none is needed")
            )
            # the role is the server's, not a database's
            password = secrets.token_hex(16)
            populations = [
                seeded(postgres, folder, users, password=password, workers=options.workers) for users in options.users
            ]
            measured(populations, options.rounds, findings)
    print(findings.table())
    if options.json is not None:
        findings.write(options.json)


if __name__ == "__main__":
    main()
