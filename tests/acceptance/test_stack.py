"""`make run` as its user meets it: one command in, a stack out, and what it survives."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.plain_http import PLAIN
from tests.waiting import eventually

MUSTER = Path(sys.executable).parent / "muster"
ANY_PORT = {"COMMAND_PORT": "0", "QUERY_PORT": "0", "PROJECTOR_PORT": "0"}


@dataclass(frozen=True, slots=True)
class Run:
    """One `muster run`; what it says goes to a file."""

    home: Path
    process: subprocess.Popen[bytes]
    output: Path

    def said(self) -> str:
        return self.output.read_text()

    def record(self) -> dict[str, Any]:
        def read() -> dict[str, Any] | None:
            if self.process.poll() is not None:
                raise AssertionError(f"muster run ended with {self.process.returncode}:\n{self.said()}")
            try:
                found: dict[str, Any] = json.loads((self.home / "run.json").read_text())
            except FileNotFoundError:
                return None
            return found

        return eventually(read, what="run.json", timeout=60) or {}

    def pid(self, name: str) -> int:
        return int(self.record()["pids"][name])

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)


StartRun = Callable[..., Run]


def environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    wanted = ("PATH", "HOME", "LANG")
    return {name: os.environ[name] for name in wanted if name in os.environ} | {"MUSTER_HOME": str(home), **more}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def start_run(home: Path, tmp_path: Path) -> Iterator[StartRun]:
    runs: list[Run] = []

    def start(**more: str) -> Run:
        output = tmp_path / f"run-{len(runs)}.out"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [MUSTER, "run"],
                cwd="/",
                env=environment(home, ANY_PORT | more),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        runs.append(Run(home, process, output))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.wait(timeout=60)


def muster(home: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MUSTER, *command],
        cwd="/",
        env=environment(home, more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


def create_user(record: Mapping[str, Any], email: str) -> tuple[str, str]:
    """Give the new user's id and the position of the event."""

    def create() -> httpx.Response | None:
        try:
            answer = httpx.post(
                f"{record['command_url']}/users",
                headers={"Authorization": f"Bearer {record['token']}"},
                json={"email": email, "display_name": "Ada"},
                verify=PLAIN,
                trust_env=False,
            )
        except httpx.TransportError:
            return None
        return answer if answer.status_code == 201 else None

    answer = eventually(create, what="a user is created", timeout=60)
    assert answer is not None
    return answer.json()["id"], answer.headers["Event-Position"]


def read_user(record: Mapping[str, Any], user_id: str, position: str) -> httpx.Response:
    return httpx.get(
        f"{record['query_url']}/users/{user_id}",
        headers={"Authorization": f"Bearer {record['token']}", "Min-Position": position, "Prefer": "wait=20"},
        timeout=30,
        verify=PLAIN,
        trust_env=False,
    )


def is_read(record: Mapping[str, Any], user_id: str, position: str) -> bool:
    try:
        return read_user(record, user_id, position).status_code == 200
    except httpx.TransportError:
        return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def restarted(run: Run, name: str, before: int) -> bool:
    return run.pid(name) != before


def test_one_command_gives_a_stack_that_keeps_its_data(home: Path, start_run: StartRun) -> None:
    first = start_run()
    record = first.record()
    user_id, position = create_user(record, "ada@example.com")
    assert read_user(record, user_id, position).json()["email"] == "ada@example.com"
    assert set(record["pids"]) == {"supervisor", "postgres", "broker", "command_api", "query_api", "projector"}
    with psycopg.connect(record["database_url"]) as owner:
        # the first is the administrator
        assert owner.execute("SELECT max(position), count(*) FROM log.events").fetchone() == (2, 2)

    assert first.interrupt() == 0
    assert not (home / "run.json").exists()
    assert not [name for name, pid in record["pids"].items() if alive(pid)]

    again = start_run().record()
    assert read_user(again, user_id, position).status_code == 200
    assert create_user(again, "grace@example.com")[1] == "3"
    # what somebody has copied is still good
    assert read_user(again | {"token": record["token"]}, user_id, position).status_code == 200


def test_the_docs_it_names_are_there_and_its_curl_lines_work_as_printed(start_run: StartRun) -> None:
    run = start_run()
    record = run.record()
    eventually(lambda: "Ctrl-C" in run.said(), what="the welcome")
    said = run.said()
    for url in (record["command_url"], record["query_url"]):
        assert f"{url}/docs" in said
        assert httpx.get(f"{url}/docs", verify=PLAIN, trust_env=False).status_code == 200
    assert record["admin_email"] in said
    assert f"TOKEN={record['token']}\n" in said
    printed = said[said.index("Log in") : said.index("Ctrl-C")].splitlines()
    lines = "\n".join(line for line in printed if line.startswith("  "))
    pasted = subprocess.run(["/bin/sh"], input=lines, capture_output=True, text=True, check=True, timeout=30)
    assert '"access_token":' in pasted.stdout
    assert "HTTP/1.1 201" in pasted.stdout
    assert "HTTP/1.1 200" in pasted.stdout


def test_authorize_logs_in_from_the_docs_of_either_api(start_run: StartRun) -> None:
    record = start_run(ALLOWED_ORIGINS="http://localhost:5173").record()
    login = f"{record['command_url']}/login"
    password = Path(record["admin_password_file"]).read_text().strip()
    for api in ("command", "query"):
        url = record[f"{api}_url"]
        flows = httpx.get(f"{url}/openapi.json", verify=PLAIN, trust_env=False).json()["components"]["securitySchemes"][
            "muster"
        ]["flows"]
        assert {flow["tokenUrl"] for flow in flows.values()} == {login}
        # a browser shows a page only the answers that are for it
        for origin in (url, url.replace("127.0.0.1", "localhost"), "http://localhost:5173"):
            answer = httpx.post(
                login,
                data={"username": record["admin_email"], "password": password},
                headers={"Origin": origin},
                verify=PLAIN,
                trust_env=False,
            )
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)


def test_a_fresh_token_is_a_command_away(home: Path, start_run: StartRun) -> None:
    record = start_run().record()
    told = muster(home, "token")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.strip() != record["token"]
    create_user(record | {"token": told.stdout.strip()}, "ada@example.com")
    refused = muster(home, "token", "--email", "ada@example.com", "--password-file", record["admin_password_file"])
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "muster: ada@example.com: Invalid username or password\n"


def test_an_operators_commands_find_the_stack(home: Path, start_run: StartRun) -> None:
    start_run().record()
    made = muster(home, "clients", "create", "billing", "--scope", "users:read", KEK="another's")
    assert made.returncode == 0, made.stderr
    assert " billing " in muster(home, "clients", "list").stdout
    assert " signs since " in muster(home, "keys", "list").stdout


def test_secrets_of_another_deployment_in_the_environment_change_nothing(start_run: StartRun) -> None:
    others = {"KEK": "x", "EMAIL_INDEX_KEY": "x", "DATABASE_URL_FILE": "/nowhere", "FIRST_ADMIN_PASSWORD": "x"}
    create_user(start_run(**others).record(), "ada@example.com")


def test_a_home_without_the_administrator_gets_one_and_one_with_another_password_runs_without_a_token(
    home: Path, start_run: StartRun
) -> None:
    def change_the_administrator(record: Mapping[str, Any], **fields: str) -> None:
        headers = {"Authorization": f"Bearer {record['token']}"}
        assert httpx.patch(f"{record['command_url']}/users/me", headers=headers, json=fields).status_code == 200

    run = start_run()
    change_the_administrator(run.record(), email="somebody@example.com")
    assert run.interrupt() == 0

    run = start_run()
    record = run.record()
    create_user(record, "ada@example.com")
    password = Path(record["admin_password_file"]).read_text().strip()
    change_the_administrator(record, password="a lighthouse in the fog", current_password=password)
    assert run.interrupt() == 0

    run = start_run()
    record = run.record()
    assert record["token"] is None
    assert f"there is no token: admin@example.com cannot log in with what {record['admin_password_file']}" in run.said()
    assert muster(home, "status").returncode == 0
    Path(record["admin_password_file"]).write_text("a lighthouse in the fog\n")
    assert muster(home, "token").returncode == 0


def test_only_its_user_may_look_into_the_home(home: Path, start_run: StartRun) -> None:
    start_run().record()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    loose = [
        str(path)
        for folder in (home, home / "secrets", home / "logs")
        for path in folder.iterdir()
        if path.is_file() and path.stat().st_mode & 0o077
    ]
    assert not loose


@pytest.mark.parametrize("name", ["command_api", "query_api", "projector", "broker", "postgres"])
def test_a_process_that_dies_is_started_again_and_the_stack_goes_on(name: str, start_run: StartRun) -> None:
    run = start_run()
    record = run.record()
    create_user(record, "ada@example.com")
    before = run.pid(name)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: restarted(run, name, before), what=f"{name} is started again")
    assert f"{name} (pid {before}) was ended by SIGKILL; starting it again in 0.5 s" in run.said()
    user_id, position = create_user(run.record(), "grace@example.com")
    eventually(lambda: is_read(record, user_id, position), what="the new user is read", timeout=60)


def test_nothing_outlives_a_supervisor_that_is_killed_and_the_next_finds_the_data(start_run: StartRun) -> None:
    run = start_run()
    record = run.record()
    user_id, position = create_user(record, "ada@example.com")
    run.process.kill()
    run.process.wait(timeout=10)
    (run.home / "run.json").rename(run.home.parent / "run.json.before")
    again = start_run().record()
    assert not [name for name, pid in record["pids"].items() if alive(pid)]
    assert read_user(again, user_id, position).status_code == 200


def test_a_second_stack_in_the_same_home_is_refused_with_the_first_ones_addresses(
    home: Path, start_run: StartRun
) -> None:
    run = start_run()
    record = run.record()
    refused = muster(home, "run", **ANY_PORT)
    assert refused.returncode == 2
    assert f"already runs (pid {run.process.pid})" in refused.stderr
    assert f"{record['command_url']}/docs" in refused.stderr
    assert muster(home, "reset").returncode == 2
    assert muster(home, "status").returncode == 0


def test_a_taken_port_is_named_with_its_variable_before_anything_starts(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = muster(home, "run", **ANY_PORT | {"QUERY_PORT": str(port)})
    assert refused.returncode == 2
    assert refused.stderr.strip() == (
        f"muster: cannot listen on 127.0.0.1:{port} (Address already in use): "
        "set QUERY_PORT to another port, or to 0 for any free one"
    )
    assert not (home / "postgres").exists()


def test_the_demo_tells_the_whole_story(home: Path, start_run: StartRun) -> None:
    start_run().record()
    told = muster(home, "demo")
    assert told.returncode == 0, told.stdout + told.stderr
    assert (home / "secrets" / "admin-password").read_text().strip() not in told.stdout
    assert "All 10 steps went as they should." in told.stdout


def test_reset_drops_the_home_and_commands_say_that_no_stack_runs(home: Path, start_run: StartRun) -> None:
    run = start_run()
    run.record()
    assert run.interrupt() == 0
    assert muster(home, "reset").returncode == 0
    assert not home.exists()
    status = muster(home, "status")
    assert status.returncode == 2
    assert "no stack runs in" in status.stderr
