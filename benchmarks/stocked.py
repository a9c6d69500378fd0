"""A database with a log of many users, on a server of its own, beside a broker: for what needs no HTTP."""

import base64
import os
import secrets
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from figures import Findings
from run import say
from sized_postgres import SizedPostgres

from migrations.apply import migrate
from muster.database import as_role
from muster.embedded.broker import EmbeddedBroker, wait_for_metadata
from muster.embedded.program import plain_environment
from muster.seeding import seed_log
from runtime.settings import Settings

ROLES = ("muster_command", "muster_projector")
DATABASE = "postgres"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stocked:
    """`owner_url` is of the database's owner; `postgres` and, of an embedded one, `broker` are process ids."""

    folder: Path
    owner_url: str
    keys: dict[str, str]
    password: str
    bootstrap_servers: str
    postgres: int
    broker: int | None

    def environment(self, role: str, **further: str) -> dict[str, str]:
        """Of a process that logs in as this role."""
        return {
            **plain_environment(),
            # a checkout that is not installed
            **{name: value for name, value in os.environ.items() if name == "PYTHONPATH"},
            **self.keys,
            "MUSTER_MODE": "test",
            "LOG_LEVEL": "warning",
            "DATABASE_URL": as_role(self.owner_url, role, self.password),
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            # as `make run` has it: the embedded broker answers empty fetches at once
            **({} if self.broker is None else {"FETCH_PAUSE": "0.01"}),
            **further,
        }

    def settings(self, role: str, **further: str) -> Settings:
        return Settings.model_validate({n.lower(): v for n, v in self.environment(role, **further).items()})

    def pids(self, **further: int) -> dict[str, int]:
        known = {"postgres": self.postgres} | ({} if self.broker is None else {"broker": self.broker})
        return {**further, **known}

    def seed(self, users: int, *, seed: int = 1) -> int:
        """Append `users` users and half as many further events; answers how many events the log has then."""
        owner = Settings.model_validate(
            {"muster_mode": "test", "database_url": self.owner_url, **{n.lower(): v for n, v in self.keys.items()}}
        )
        return seed_log(owner, users, seed=seed, workers=os.cpu_count() or 1).last

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """As the owner, on a connection of its own."""
        with psycopg.connect(self.owner_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description is not None else []


@contextmanager
def stocked(users: int, *, parent: Path | None) -> Generator[Stocked]:
    """The broker is that of KAFKA_BOOTSTRAP_SERVERS, or an embedded one. The folder is removed in the end."""
    with tempfile.TemporaryDirectory(prefix="muster-benchmark-", dir=parent) as name:
        folder = Path(name)
        with SizedPostgres(folder / "postgres") as postgres, _broker(folder / "broker") as (servers, broker):
            password = secrets.token_hex(16)
            migrate(postgres.url(DATABASE), role_passwords=dict.fromkeys(ROLES, password))
            assert postgres.process is not None
            stock = Stocked(
                folder=folder,
                owner_url=postgres.url(DATABASE),
                keys={name: base64.b64encode(secrets.token_bytes(32)).decode() for name in ("KEK", "EMAIL_INDEX_KEY")},
                password=password,
                bootstrap_servers=servers,
                postgres=postgres.process.pid,
                broker=broker,
            )
            say(f"seeding {users:,} users")
            stock.seed(users)
            stock.execute("VACUUM (ANALYZE) log.events, log.user_keys")
            yield stock


@contextmanager
def _broker(folder: Path) -> Generator[tuple[str, int | None]]:
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if servers is not None:
        wait_for_metadata(servers, timeout=30)
        yield servers, None
        return
    with EmbeddedBroker(folder) as embedded:
        assert embedded.process is not None
        yield embedded.bootstrap_servers, embedded.process.pid


def costs(findings: Findings) -> str:
    """Microseconds of processor time that each process took for one event, in the medians of the rounds."""
    lines = ["", "processor time for one event, us"]
    for name, figures in findings.rounds.items():
        names = dict.fromkeys(process for figure in figures for process in figure.cores)
        found = {
            process: sorted(figure.cores.get(process, 0.0) / figure.rate * 1e6 for figure in figures)
            for process in names
        }
        told = " ".join(f"{process} {values[len(values) // 2]:.1f}" for process, values in found.items())
        lines.append(f"{name:34}{told}")
    return "\n".join(lines) + "\n"
