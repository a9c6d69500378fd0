"""`muster import` beside the limit: COPY of the same events into the same table with its indexes.

    python benchmarks/bulk_import.py [--users 100000] [--rounds 3] [--json FILE]

Each import goes into an empty database of its own and is timed from the start of its process to its end: validation,
e-mail claims, idempotency keys and sealing included, without passwords. COPY gets what the import wrote.
"""

import argparse
import base64
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson
import psycopg
from figures import Figure, Findings, surroundings
from footprint import Memory, memory_of
from psycopg import sql
from run import say

from migrations.apply import migrate
from muster.database import as_role
from muster.embedded.postgres import EmbeddedPostgres

ROLE = "muster_command"
MUSTER = Path(sys.executable).parent / "muster"
BLOCK = 1 << 20
TEAMS = ("engines", "looms", "support", "research")


def users_file(path: Path, users: int) -> None:
    with path.open("wb") as file:
        for number in range(users):
            record = {
                "email": f"import-{number:09d}@example.com",
                "display_name": f"Import {number}",
                "roles": ["user"],
                "attributes": {"team": TEAMS[number % len(TEAMS)], "floor": number % 7},
            }
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


class BulkImport:
    def __init__(self, postgres: EmbeddedPostgres, file: Path, users: int, findings: Findings) -> None:
        self._postgres = postgres
        self._file = file
        self._users = users
        self._findings = findings
        self._password = secrets.token_hex(16)
        self.peak = 0.0

    def round(self, number: int) -> None:
        name = f"import_{number}"
        with psycopg.connect(self._postgres.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        owner_url = self._postgres.url(name)
        migrate(owner_url, role_passwords={ROLE: self._password})
        self._findings.add("import, users", Figure(rate=self._users / self._import(owner_url)))
        self._findings.add("COPY, events", Figure(rate=self._users / self._copy(owner_url)))
        with psycopg.connect(self._postgres.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))

    def _import(self, owner_url: str) -> float:
        keys = {name: base64.b64encode(secrets.token_bytes(32)).decode() for name in ("KEK", "EMAIL_INDEX_KEY")}
        url = as_role(owner_url, ROLE, self._password)
        environment = {**os.environ, **keys, "MUSTER_MODE": "test", "DATABASE_URL": url, "LOG_LEVEL": "warning"}
        began = time.perf_counter()
        process = subprocess.Popen([str(MUSTER), "import", str(self._file)], env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            try:
                self.peak = max(self.peak, memory_of(process.pid).peak)
            except (FileNotFoundError, ProcessLookupError, KeyError):
                # it has just ended
                break
            time.sleep(0.05)
        assert process.wait() == 0
        return time.perf_counter() - began

    def _copy(self, owner_url: str) -> float:
        kept = self._file.with_suffix(".events")
        with psycopg.connect(owner_url, autocommit=True) as connection:
            ((events,),) = connection.execute("SELECT count(*) FROM log.events").fetchall()
            assert events == self._users
            query = b"COPY (SELECT * FROM log.events ORDER BY position) TO STDOUT"
            with kept.open("wb") as file, connection.cursor() as cursor, cursor.copy(query) as copy:
                for block in copy:
                    file.write(block)
            connection.execute("CREATE TABLE log.copied (LIKE log.events INCLUDING ALL)")
            began = time.perf_counter()
            copying = b"COPY log.copied FROM STDIN"
            with kept.open("rb") as file, connection.cursor() as cursor, cursor.copy(copying) as copy:
                while block := file.read(BLOCK):
                    copy.write(block)
            return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken over these (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    options = parser.parse_args()
    settings = {name: getattr(options, name) for name in ("users", "rounds")}
    with tempfile.TemporaryDirectory(prefix="muster-benchmark-", dir=options.folder) as name:
        folder = Path(name)
        file = folder / "users.ndjson"
        users_file(file, options.users)
        with EmbeddedPostgres(folder / "postgres") as postgres:
            where = surroundings(postgres.url(), broker="none is needed")
            findings = Findings(title="Bulk import", settings=settings, where=where)
            importing = BulkImport(postgres, file, options.users, findings)
            for number in range(options.rounds):
                say(f"round {number + 1} of {options.rounds}")
                importing.round(number)
            findings.ratios.append(("import, users", "COPY, events"))
            findings.remember_memory("at its peak", {"import": Memory(rss=importing.peak, peak=importing.peak)})
    print(findings.table())
    if options.json is not None:
        findings.write(options.json)


if __name__ == "__main__":
    main()
