import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from migrations.apply import migrate
from muster.database import ROLES, prepare_database, role_passwords
from muster.developer import developers_token
from muster.embedded.broker import EmbeddedBroker
from muster.embedded.postgres import EmbeddedPostgres
from muster.embedded.program import Program
from muster.environment import process_environment, without_secrets
from muster.failures import CannotRun
from muster.home import Home
from muster.listening import Listening, choose_ports
from muster.readiness import unreadiness
from muster.running import RunningStack
from muster.supervisor import StopRequested, Supervisor, ending, ignore_stop_requests, stop_requests
from runtime.settings import Settings

READY_WITHIN = 60.0
PULSE = 0.1


def run_stack(
    home: Home,
    listening: Listening,
    *,
    say: Callable[[str], None],
    welcome: Callable[[RunningStack], None],
) -> None:
    """Run all of Muster in one folder until SIGINT or SIGTERM; raises CannotRun when it cannot start."""
    if os.environ.get("MUSTER_MODE") == "production":
        raise CannotRun("this stack is for development: unset MUSTER_MODE (or say development or test)")
    with home.held() as lock, stop_requests():
        starting = _Starting(home=home, listening=listening, lock=lock, say=say, supervisor=Supervisor(say))
        supervisor = starting.supervisor
        try:
            stack = starting.run()
            stack.write(home.run_file)
            welcome(stack)
            while True:
                time.sleep(PULSE)
                if supervisor.look_after():
                    stack = replace(stack, pids=all_pids(supervisor))
                    stack.write(home.run_file)
        except StopRequested:
            say("stopping")
        finally:
            ignore_stop_requests()
            supervisor.stop()
            home.run_file.unlink(missing_ok=True)
        say("stopped; the data is kept")


def all_pids(supervisor: Supervisor) -> Mapping[str, int]:
    return {"supervisor": os.getpid(), **supervisor.pids}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Starting:
    home: Home
    listening: Listening
    lock: int
    say: Callable[[str], None]
    supervisor: Supervisor

    def run(self) -> RunningStack:
        began = time.monotonic()
        ports = choose_ports(self.listening)
        self.home.make_keys()
        self.say(f"starting PostgreSQL and the broker in {self.home.folder}")
        postgres, broker = self._postgres(), self._broker()
        database_url = prepare_database(postgres, self.home)
        self.say("migrating the database")
        migrate(database_url, role_passwords=role_passwords(self.home))

        self.say(f"starting {', '.join(ROLES)}")
        host = self.listening.reached_at
        urls = {process: f"http://{host}:{port}" for process, port in zip(ROLES, ports.values(), strict=True)}
        environments = {
            process: self._environment(
                process_environment(
                    self.home,
                    process,
                    database_url=database_url,
                    kafka_bootstrap_servers=broker.bootstrap_servers,
                ),
                ports,
                urls,
            )
            for process in ROLES
        }
        # ended in the opposite order: the side that takes requests first
        for process in reversed(ROLES):
            self.supervisor.start(self._program(process, environments[process]))
        self._wait_until_ready(urls)
        broker.wait_until_saved(
            os.environ.get(name.upper()) or str(Settings.model_fields[name].default)
            for name in ("events_topic", "snapshot_topic")
        )
        token = developers_token(urls["command_api"], environments["command_api"], say=self.say)
        self.say(f"ready in {time.monotonic() - began:.1f} s")
        return RunningStack(
            command_url=urls["command_api"],
            query_url=urls["query_api"],
            projector_url=urls["projector"],
            token=token,
            admin_email=environments["command_api"]["FIRST_ADMIN_EMAIL"],
            admin_password_file=environments["command_api"]["FIRST_ADMIN_PASSWORD_FILE"],
            database_url=database_url,
            kafka_bootstrap_servers=broker.bootstrap_servers,
            pids=all_pids(self.supervisor),
        )

    def _postgres(self) -> EmbeddedPostgres:
        log = self.home.log_file("postgres")
        postgres = EmbeddedPostgres(self.home.folder / "postgres", log=log, pass_fds=(self.lock,))
        self.supervisor.adopt(postgres.program(), postgres.start())
        return postgres

    def _broker(self) -> EmbeddedBroker:
        log = self.home.log_file("broker")
        broker = EmbeddedBroker(self.home.folder / "broker", log=log, pass_fds=(self.lock,))
        self.supervisor.adopt(broker.program(), broker.start())
        return broker

    def _environment(
        self, settings: Mapping[str, str], ports: Mapping[str, int], urls: Mapping[str, str]
    ) -> Mapping[str, str]:
        return {
            "MUSTER_MODE": "development",
            # the embedded broker waits for ever for a member that was killed, unless it comes back by its name
            "PROJECTOR_INSTANCE": "muster-run",
            # this broker answers empty fetches at once: without a rest the projector would keep a core busy
            "FETCH_PAUSE": "0.01",
            # a token that was copied in the morning is still good after lunch
            "ACCESS_TOKEN_TTL": "43200",
            # what events name their schemas by
            "SCHEMAS_URL": f"{urls['query_api']}/schemas",
            **without_secrets(os.environ),
            **settings,
            "HOST": self.listening.host,
            **{name.upper(): str(port) for name, port in ports.items()},
            # the query API's /docs log in at the command API
            "LOGIN_URL": f"{urls['command_api']}/login",
            "ALLOWED_ORIGINS": ",".join([os.environ.get("ALLOWED_ORIGINS", ""), *self._origins(ports)]),
        }

    def _origins(self, ports: Mapping[str, int]) -> Sequence[str]:
        """Those of both APIs' pages, as browsers write them."""
        hosts = dict.fromkeys((self.listening.reached_at, "127.0.0.1", "localhost"))
        return [f"http://{host}:{ports[name]}" for host in hosts for name in ("command_port", "query_port")]

    def _program(self, process: str, environment: Mapping[str, str]) -> Program:
        return Program(
            name=process,
            # -P: nothing that lies in the working folder can stand in for a module
            command=[sys.executable, "-P", "-m", process],
            environment=environment,
            directory=self.home.folder,
            log=self.home.log_file(process),
            pass_fds=(self.lock,),
        )

    def _wait_until_ready(self, urls: Mapping[str, str]) -> None:
        deadline = time.monotonic() + READY_WITHIN
        waiting = dict(urls)
        while waiting:
            for program, code in self.supervisor.ended():
                raise CannotRun(f"{program.name} {ending(code)}: {program.last_words()} (log: {program.log})")
            wrongs = {process: unreadiness(url) for process, url in waiting.items()}
            waiting = {process: url for process, url in waiting.items() if wrongs[process]}
            if waiting and time.monotonic() > deadline:
                process = next(iter(waiting))
                raise CannotRun(f"{process} is not ready after {READY_WITHIN:g} s: {wrongs[process]}")
            time.sleep(0.05)
