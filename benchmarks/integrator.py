"""What the integrator costs: appends with it beside the writer, as in the command API, and without it.

    python benchmarks/integrator.py [--seconds 5] [--rounds 3] [--callers 64] [--json FILE]

Each round appends to two databases on one server, one after another: one has an integrator, the other none. Needs no
Docker; the broker is KAFKA_BOOTSTRAP_SERVERS, or an embedded one.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import psycopg
from figures import Figure, Findings, surroundings
from log_alone import LogLoad
from psycopg import sql
from run import say

from migrations.apply import migrate
from muster.database import as_role
from muster.embedded.broker import EmbeddedBroker
from muster.embedded.postgres import EmbeddedPostgres

ROLE = "muster_command"
LOG_ALONE = Path(__file__).parent / "log_alone.py"
KINDS: tuple[Literal["create", "update"], ...] = ("create", "update")


class Appending:
    def __init__(
        self, postgres: EmbeddedPostgres, broker: str, options: argparse.Namespace, findings: Findings
    ) -> None:
        self._options = options
        self._findings = findings
        self._next = 0
        self._databases: dict[bool, str] = {}
        password = secrets.token_hex(16)
        for integrated in (False, True):
            name = f"log_{integrated}".lower()
            with psycopg.connect(postgres.url(), autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            migrate(postgres.url(name), role_passwords={ROLE: password})
            self._databases[integrated] = as_role(postgres.url(name), ROLE, password)
        self._integrator = {
            "muster_mode": "test",
            "database_url": self._databases[True],
            "kafka_bootstrap_servers": broker,
            "checkpoints_topic": f"users.checkpoints.benchmark-{secrets.token_hex(4)}",
        }

    def round(self, number: int) -> None:
        for kind in KINDS:
            # whichever comes first has the quieter moment as often as the other
            for integrated in (False, True) if number % 2 else (True, False):
                self._append(kind, integrated=integrated)

    def _append(self, kind: Literal["create", "update"], *, integrated: bool) -> None:
        asked = LogLoad(
            database_url=self._databases[integrated],
            kind=kind,
            callers=self._options.callers,
            seconds=self._options.seconds,
            first=self._next,
            integrator=self._integrator if integrated else None,
        )
        command = [sys.executable, str(LOG_ALONE)]
        done = subprocess.run(
            command, input=json.dumps(asdict(asked)), stdout=subprocess.PIPE, stderr=sys.stderr, text=True, check=True
        )
        # what is logged on the way is in front of it
        found = json.loads(done.stdout.splitlines()[-1])
        self._next += 10_000_000
        name = f"{kind}, integrator {'on' if integrated else 'off'}"
        figure = Figure(rate=found["rate"], p50=found["p50"], p99=found["p99"], cores={"writer": found["cpu"]})
        self._findings.add(name, figure)
        if integrated:
            signed = Figure(rate=found["rate"], p50=found["signed_p50"], p99=found["signed_p99"])
            self._findings.add(f"{kind}, answer to checkpoint", signed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken over these (%(default)s)")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    options = parser.parse_args()
    settings = {name: getattr(options, name) for name in ("seconds", "rounds", "callers")}
    with tempfile.TemporaryDirectory(prefix="muster-benchmark-") as name:
        folder = Path(name)
        with EmbeddedPostgres(folder / "postgres") as postgres, EmbeddedBroker(folder / "broker") as embedded:
            broker = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or embedded.bootstrap_servers
            where = surroundings(postgres.url(), broker=os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or "embedded")
            findings = Findings(title="The integrator beside the writer", settings=settings, where=where)
            appending = Appending(postgres, broker, options, findings)
            for number in range(options.rounds):
                say(f"round {number + 1} of {options.rounds}")
                appending.round(number)
            findings.ratios += [(f"{kind}, integrator on", f"{kind}, integrator off") for kind in KINDS]
    print(findings.table())
    if options.json is not None:
        findings.write(options.json)


if __name__ == "__main__":
    main()
