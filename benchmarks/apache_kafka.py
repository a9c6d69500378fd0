"""Apache Kafka for a benchmark, started as CI starts it, where Java and its artifacts are there or can be had."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from muster.embedded.broker import wait_for_metadata
from muster.embedded.ports import free_port
from muster.failures import CannotRun

ROOT = Path(__file__).parents[1]
CI = ROOT / ".ci" / "kafka"
# the first start fetches the artifacts
READY_WITHIN = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Kafka:
    bootstrap_servers: str
    name: str


@contextmanager
def apache_kafka(folder: Path, *, say: Callable[[str], None]) -> Generator[Kafka | None]:
    """A broker with its data in `folder`; none, and a line that says why, where it cannot run."""
    wrong = _missing()
    if wrong is not None:
        say(f"no Apache Kafka: {wrong}; the embedded broker takes its place")
        yield None
        return
    port = free_port()
    log = folder / "kafka.log"
    with log.open("wb") as told:
        process = subprocess.Popen(
            [str(CI / "start"), str(folder / "kafka"), str(port), str(free_port(taken=[port]))],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=subprocess.STDOUT,
            # whoever ends it ends what it runs on the way too; the terminal's Ctrl-C is not for it
            start_new_session=True,
        )
    try:
        servers = f"127.0.0.1:{port}"
        try:
            wait_for_metadata(servers, timeout=READY_WITHIN, meanwhile=lambda: _fail_if_ended(process, log))
        except CannotRun as error:
            say(f"no Apache Kafka: {error}; the embedded broker takes its place")
            yield None
            return
        yield Kafka(bootstrap_servers=servers, name=f"Apache Kafka {_version()}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _missing() -> str | None:
    if shutil.which("java") is None:
        return "there is no Java"
    fetched = ROOT / ".kafka" / "lib" / ".from"
    there = fetched.exists() and fetched.read_bytes() == (CI / "pom.xml").read_bytes()
    if not there and shutil.which("mvn") is None:
        return "its artifacts are not here, and there is no mvn to fetch them"
    return None


def _fail_if_ended(process: "subprocess.Popen[bytes]", log: Path) -> None:
    if process.poll() is not None:
        raise CannotRun(f"its process has ended: {log.read_text()[-500:].strip()}")


def _version() -> str:
    found = re.search(r"<kafka.version>(.*)</kafka.version>", (CI / "pom.xml").read_text())
    assert found is not None
    return found.group(1)
