"""The command and the query API with settings of one's choice on a PostgreSQL of their own; no broker, no projector.

For what is measured of logins and tokens. Access tokens are signed here, with a key that the database trusts.
"""

import base64
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from footprint import Memory, memory_of

from events.keyring import Kek
from identity.access_tokens import ALGORITHM, FIRST_PARTY, TYPE
from identity.roles import ROLES as SCOPES
from identity.signing_keys import NewKey, wrapped_key
from migrations.apply import migrate
from muster.database import prepare_database, role_passwords
from muster.embedded.ports import free_port
from muster.embedded.postgres import EmbeddedPostgres
from muster.embedded.program import Program, plain_environment
from muster.environment import process_environment
from muster.failures import CannotRun
from muster.home import Home
from muster.readiness import unreadiness
from muster.supervisor import Supervisor, stop_requests
from runtime.ids import new_id
from runtime.settings import Settings

FOLDER = Path(__file__).parent
READY_WITHIN = 60.0
# the longest that an access token may live: one for the whole of a run
TOKEN_TTL = 86400
PASSWORD = "the right password of everybody"  # noqa: S105 - of made-up accounts
COMMAND, QUERY = "command_api", "query_api"
# names of processes, and how each is started
Commands = Mapping[str, Sequence[str]]
STANDARD: Commands = {name: (sys.executable, "-P", "-m", name) for name in (COMMAND, QUERY)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Apis:
    """`database_url` is the owner's."""

    folder: Path
    database_url: str
    settings: Settings
    ports: Mapping[str, int]
    pids: Mapping[str, int]
    private: Ed25519PrivateKey
    kid: str

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def token(self) -> str:
        """A new administrator's access token, as `identity.access_tokens` makes them."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.settings.token_issuer,
            "aud": self.settings.token_audience,
            "sub": str(new_id()),
            "client_id": FIRST_PARTY,
            "iat": now,
            "exp": now + TOKEN_TTL,
            "jti": str(new_id()),
            "sid": str(new_id()),
            "scope": " ".join(sorted(SCOPES["admin"])),
            "rev": 0,
        }
        return jwt.encode(claims, self.private, algorithm=ALGORITHM, headers={"typ": TYPE, "kid": self.kid})

    def memory(self, name: str) -> Memory:
        return memory_of(self.pids[name])

    def make_accounts(self, emails: Sequence[str]) -> None:
        """All with the same password."""
        headers = {"authorization": f"Bearer {self.token()}"}
        with httpx.Client(base_url=self.url(COMMAND), headers=headers, timeout=30, trust_env=False) as client:
            for email in emails:
                client.post("/users", json={"email": email, "password": PASSWORD}).raise_for_status()

    def forget_guesses(self) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as owner:
            owner.execute("TRUNCATE identity.guesses")


@contextmanager
def running_apis(*, say: Callable[[str], None], commands: Commands = STANDARD, **settings: object) -> Generator[Apis]:
    """Start the processes that `commands` names; Ctrl-C and SIGTERM raise StopRequested inside.

    `settings` are fields of Settings; whatever they leave out is as in production. A second process of a kind has a
    suffix: "query_api.other".
    """
    with stop_requests(), tempfile.TemporaryDirectory(prefix="muster-benchmark-") as folder:
        home = Home(Path(folder) / "home")
        supervisor = Supervisor(say)
        with home.held() as lock:
            try:
                yield _start(home, supervisor, lock, say, commands, settings)
            finally:
                supervisor.stop()


def run_client(script: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Run a client in a process of its own: it reads what is asked as JSON from stdin and answers the same way."""
    with started_client(script, asked) as client:
        return answer_of(client)


@contextmanager
def started_client(script: str, asked: Mapping[str, Any]) -> "Generator[subprocess.Popen[str]]":
    """As `run_client`, for one beside which something else is done; it is over however one leaves."""
    client = subprocess.Popen(
        [sys.executable, str(FOLDER / script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # the terminal's Ctrl-C is this process's to handle; a session of its own would weigh as much as all the APIs'
        # whatever its priority
        process_group=0,
    )
    try:
        assert client.stdin is not None
        client.stdin.write(json.dumps(asked))
        client.stdin.flush()
        client.stdin.close()
        # communicate() would write to it again
        client.stdin = None
        yield client
    finally:
        client.kill()
        client.communicate()


def answer_of(client: "subprocess.Popen[str]") -> dict[str, Any]:
    answer, complaint = client.communicate()
    if client.returncode != 0:
        raise RuntimeError(f"{client.args} failed:\n{complaint[-4000:]}")
    return json.loads(answer)


def _start(
    home: Home,
    supervisor: Supervisor,
    lock: int,
    say: Callable[[str], None],
    commands: Commands,
    settings: Mapping[str, object],
) -> Apis:
    say(f"starting the APIs in {home.folder}")
    home.make_keys()
    postgres = EmbeddedPostgres(home.folder / "postgres", log=home.log_file("postgres"), pass_fds=(lock,))
    supervisor.adopt(postgres.program(), postgres.start())
    database_url = prepare_database(postgres, home)
    migrate(database_url, role_passwords=role_passwords(home))
    private = Ed25519PrivateKey.generate()
    key = wrapped_key(private, Kek(base64.b64decode(home.key_file("kek").read_text())))
    _trust(database_url, key)
    told = {"relay": False, "access_token_ttl": TOKEN_TTL, **settings}
    ports: dict[str, int] = {}
    for name, command in commands.items():
        ports[name] = free_port(taken=ports.values())
        process = name.partition(".")[0]
        environment = {
            **plain_environment(),
            **process_environment(home, process, database_url=database_url, kafka_bootstrap_servers="127.0.0.1:1"),
            **{setting.upper(): str(value) for setting, value in told.items()},
            {COMMAND: "COMMAND_PORT", QUERY: "QUERY_PORT"}[process]: str(ports[name]),
        }
        program = Program(
            name=name,
            command=command,
            environment=environment,
            directory=home.folder,
            log=home.log_file(name),
            pass_fds=(lock,),
        )
        supervisor.start(program)
    _wait_until_ready(ports, supervisor)
    return Apis(
        folder=home.folder,
        database_url=database_url,
        settings=Settings.model_validate({"database_url": database_url, "muster_mode": "test", **told}),
        ports=ports,
        pids=dict(supervisor.pids),
        private=private,
        kid=key.kid,
    )


def _trust(database_url: str, key: NewKey) -> None:
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(
            "INSERT INTO identity.signing_keys (kid, public_key, wrapped, kek_id, signs_from)"
            " VALUES (%s, %s, %s, %s, 'epoch')",
            (key.kid, key.public_key, key.wrapped, key.kek_id),
        )


def _wait_until_ready(ports: Mapping[str, int], supervisor: Supervisor) -> None:
    deadline = time.monotonic() + READY_WITHIN
    for name, port in ports.items():
        while (wrong := unreadiness(f"http://127.0.0.1:{port}")) is not None:
            for program, _ in supervisor.ended():
                raise CannotRun(f"{program.name} ended: {program.last_words()}")
            if time.monotonic() > deadline:
                raise CannotRun(f"{name} is not ready after {READY_WITHIN:g} s: {wrong}")
            time.sleep(0.05)
