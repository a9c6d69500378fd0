"""The real processes, each on a port of its own, as an operator would start them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from muster.embedded.ports import free_port
from runtime.settings import Settings
from tests.databases import MakeSettings
from tests.plain_http import PLAIN
from tests.tokens import authorized
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent
ROLES = {"command_api": "muster_command", "query_api": "muster_query", "projector": "muster_projector"}
PORTS = {"command_api": "command_port", "query_api": "query_port", "projector": "projector_port"}


@dataclass(slots=True, kw_only=True)
class Process:
    name: str
    popen: subprocess.Popen[bytes]
    url: str
    log: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=authorized(), timeout=30, verify=PLAIN, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        """As whoever has no token."""
        return httpx.get(f"{self.url}{path}", verify=PLAIN, trust_env=False)

    def part(self, name: str) -> str:
        """How a part of the process is, as /readyz tells it."""
        return self.get("/readyz").json()["parts"][name]

    def answers(self) -> bool:
        """Whether it can be asked how its parts are, ready or not."""
        if self.popen.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.popen.returncode}:\n{self.log.read_text()[-4000:]}")
        try:
            return bool(self.get("/readyz").json()["parts"])
        except httpx.TransportError:
            return False

    def ready(self) -> bool:
        if self.popen.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.popen.returncode}:\n{self.log.read_text()[-4000:]}")
        try:
            return self.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def wait_until_ready(self) -> "Process":
        eventually(self.ready, what=f"{self.name} is ready", timeout=60)
        return self

    def wait_until_dead(self) -> int:
        return self.popen.wait(timeout=60)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(timeout=10)

    def stop(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout=60)


StartProcess = Callable[..., Process]


def inherited() -> dict[str, str]:
    """What a command under test has from whoever runs the tests, and nothing of a deployment."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, secrets in the clear."""
    values: dict[str, Any] = settings.model_dump(exclude_none=True)
    return {
        name.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
    }


@dataclass(slots=True)
class _Started:
    processes: list[Process] = field(default_factory=list[Process])
    # what was just started does not listen yet: whoever looked for a free port would find this one
    ports: list[int] = field(default_factory=list[int])


@pytest.fixture
def start_process(make_settings: MakeSettings, tmp_path: Path) -> Iterator[StartProcess]:
    """Start a process of this test's stack: start_process("projector", failpoints="..."). Killed when the test ends.

    With `broker=False` there is none, and the command API has no relay.
    """
    started = _Started()

    def start(name: str, *, folder: Path = ROOT, broker: bool = True, **overrides: object) -> Process:
        port = free_port(taken=started.ports)
        started.ports.append(port)
        settings = make_settings(ROLES[name], broker=broker, **{PORTS[name]: port}, **overrides)
        log = tmp_path / f"{name}-{len(started.processes)}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [sys.executable, "-m", name],
                cwd=folder,
                env=os.environ | environment_of(settings),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        process = Process(name=name, popen=popen, url=f"http://127.0.0.1:{port}", log=log)
        started.processes.append(process)
        return process

    yield start
    for process in started.processes:
        if process.popen.poll() is None:
            process.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    command: Process
    query: Process
    projector: Process


@pytest.fixture
def stack(start_process: StartProcess) -> Stack:
    """All three processes, ready."""
    started = Stack(
        command=start_process("command_api"), query=start_process("query_api"), projector=start_process("projector")
    )
    for process in (started.command, started.query, started.projector):
        process.wait_until_ready()
    return started
