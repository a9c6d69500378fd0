"""All of Muster on real parts in a temporary folder, a bare FastAPI process beside it, ended however one leaves."""

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
from footprint import Memory, memory_of
from psycopg import sql
from sized_postgres import SizedPostgres

from migrations.apply import migrate
from muster.database import OWNER, ROLES, as_role, prepare_database, role_passwords
from muster.embedded.broker import EmbeddedBroker, wait_for_metadata
from muster.embedded.ports import free_port
from muster.embedded.program import Program, plain_environment
from muster.environment import ADMIN_EMAIL, process_environment
from muster.failures import CannotRun
from muster.home import Home
from muster.login import log_in
from muster.readiness import unreadiness
from muster.supervisor import Supervisor, stop_requests
from runtime.settings import Settings, settings_from_environment

READY_WITHIN = 60.0
SETTLED_WITHIN = 300.0
LOG_DATABASE = "muster_log"
FOLDER = Path(__file__).parent
EVERY = (*reversed(ROLES), "bare")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """`database_url` is the owner's; `log_url` is that of a second database, which no Muster process watches.

    `environments` are Muster's processes' settings, of those too that were not started.
    """

    folder: Path
    token: str
    database_url: str
    log_url: str
    log_writer_url: str
    kafka_bootstrap_servers: str
    ports: Mapping[str, int]
    pids: Mapping[str, int]
    environments: Mapping[str, Mapping[str, str]]

    @property
    def authorization(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def memory(self) -> dict[str, Memory]:
        """Of each process but PostgreSQL's, whose many share most of theirs."""
        return {name: memory_of(pid) for name, pid in self.pids.items() if name != "postgres"}

    def settle(self) -> float:
        """Wait until the read model has all that was written; answers the seconds that it took."""
        began = time.monotonic()
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            row = connection.execute("SELECT position FROM log.head").fetchone()
        assert row is not None
        headers = {**self.authorization, "Min-Position": str(row[0]), "Prefer": "wait=5"}
        url = f"http://127.0.0.1:{self.ports['query_api']}/users?limit=1"
        while not httpx.get(url, headers=headers, timeout=30, trust_env=False).is_success:
            if time.monotonic() - began > SETTLED_WITHIN:
                raise CannotRun(f"the read model did not reach position {row[0]} within {SETTLED_WITHIN:g} s")
        return time.monotonic() - began


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A migrated database whose processes are about to start, and their settings; `database_url` is the owner's."""

    database_url: str
    settings: Mapping[str, Settings]


@contextmanager
def running_stack(
    *,
    say: Callable[[str], None],
    parent: Path | None = None,
    fill: Callable[[Prepared], None] = lambda _: None,
    settings: Mapping[str, str] | None = None,
    processes: Collection[str] = EVERY,
) -> Generator[Stack]:
    """Start everything; Ctrl-C and SIGTERM raise StopRequested inside. The folder is removed in the end.

    `fill` is called when only PostgreSQL and the broker run; `settings` are further ones of all processes. `processes`
    are those to start, of which the command API is to be one.
    """
    with stop_requests(), tempfile.TemporaryDirectory(prefix="muster-benchmark-", dir=parent) as folder:
        home = Home(Path(folder) / "home")
        supervisor = Supervisor(say)
        with home.held() as lock:
            try:
                yield _start(home, supervisor, lock, say, fill, settings or {}, processes)
            finally:
                supervisor.stop()


def _start(
    home: Home,
    supervisor: Supervisor,
    lock: int,
    say: Callable[[str], None],
    fill: Callable[[Prepared], None],
    settings: Mapping[str, str],
    processes: Collection[str],
) -> Stack:
    say(f"starting the stack in {home.folder}")
    home.make_keys()
    postgres = SizedPostgres(home.folder / "postgres", log=home.log_file("postgres"), pass_fds=(lock,))
    supervisor.adopt(postgres.program(), postgres.start())
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    resting: dict[str, str] = {}
    if servers is None:
        # as `make run` has it: this broker answers empty fetches at once, and the projector would ask without end
        resting = {"FETCH_PAUSE": "0.01"}
        broker = EmbeddedBroker(home.folder / "broker", log=home.log_file("broker"), pass_fds=(lock,))
        supervisor.adopt(broker.program(), broker.start())
        servers = broker.bootstrap_servers
    else:
        wait_for_metadata(servers, timeout=30)
    database_url = prepare_database(postgres, home)
    migrate(database_url, role_passwords=role_passwords(home))
    log_url = _log_database(postgres, home)
    ports: dict[str, int] = {}
    for process in EVERY:
        ports[process] = free_port(taken=ports.values())
    suffix = secrets.token_hex(4)
    environments = {
        process: {
            **process_environment(home, process, database_url=database_url, kafka_bootstrap_servers=servers),
            "LOG_LEVEL": "warning",
            # a benchmark may outlast the tokens that deployments give out
            "ACCESS_TOKEN_TTL": "86400",
            "EVENTS_TOPIC": f"users.events.benchmark-{suffix}",
            "SNAPSHOT_TOPIC": f"users.snapshot.benchmark-{suffix}",
            "CHECKPOINTS_TOPIC": f"users.checkpoints.benchmark-{suffix}",
            "PROJECTOR_GROUP": f"projector-benchmark-{suffix}",
            "COMMAND_PORT": str(ports["command_api"]),
            "QUERY_PORT": str(ports["query_api"]),
            "PROJECTOR_PORT": str(ports["projector"]),
            **resting,
            **settings,
        }
        for process in reversed(ROLES)
    }
    fill(
        Prepared(
            database_url=database_url,
            settings={process: settings_of(environment) for process, environment in environments.items()},
        )
    )
    for process, environment in environments.items():
        if process in processes:
            supervisor.start(_program(home, lock, process, [sys.executable, "-P", "-m", process], environment))
    if "bare" in processes:
        bare = [sys.executable, str(FOLDER / "rivals" / "bare.py"), str(ports["bare"])]
        supervisor.start(_program(home, lock, "bare", bare, {"PYTHONPATH": str(FOLDER)}))
    _wait_until_ready({process: port for process, port in ports.items() if process in processes}, supervisor)
    return Stack(
        folder=home.folder,
        token=log_in(f"http://127.0.0.1:{ports['command_api']}", ADMIN_EMAIL, home.secret("admin-password")),
        database_url=database_url,
        log_url=log_url,
        log_writer_url=as_role(log_url, "muster_command", home.secret("muster_command")),
        kafka_bootstrap_servers=servers,
        ports=ports,
        pids=dict(supervisor.pids),
        environments=environments,
    )


def settings_of(environment: Mapping[str, str]) -> Settings:
    return settings_from_environment(**{name.lower(): value for name, value in environment.items()})


def _log_database(postgres: SizedPostgres, home: Home) -> str:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(LOG_DATABASE), sql.Identifier(OWNER))
        )
    url = as_role(postgres.url(LOG_DATABASE), OWNER, home.secret(OWNER))
    migrate(url, role_passwords={})
    return url


def _program(home: Home, lock: int, name: str, command: list[str], settings: Mapping[str, str]) -> Program:
    return Program(
        name=name,
        command=command,
        environment={**plain_environment(), **settings},
        directory=home.folder,
        log=home.log_file(name),
        pass_fds=(lock,),
    )


def _wait_until_ready(ports: Mapping[str, int], supervisor: Supervisor) -> None:
    deadline = time.monotonic() + READY_WITHIN
    for process, port in ports.items():
        while (wrong := unreadiness(f"http://127.0.0.1:{port}")) is not None:
            for program, _ in supervisor.ended():
                raise CannotRun(f"{program.name} ended: {program.last_words()}")
            if time.monotonic() > deadline:
                raise CannotRun(f"{process} is not ready after {READY_WITHIN:g} s: {wrong}")
            time.sleep(0.05)
