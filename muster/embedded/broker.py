import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from muster.embedded.installed import installed_file
from muster.embedded.ports import free_port, refusal
from muster.embedded.program import Program, plain_environment
from muster.failures import CannotRun


class EmbeddedBroker:
    """A Kafka-protocol broker of one's own, in one folder, on the loopback.

    It saves its data about once a second and when it is told to end: a kill -9 forgets the last second.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        log: Path | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.port = port or free_port()
        self._folder = folder.resolve()
        self._log = log or self._folder / "broker.log"
        self._pass_fds = pass_fds
        self._binary = installed_file("noida_db", "noida-db")
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, *, timeout: float = 30) -> subprocess.Popen[bytes]:
        """Start the broker and wait for a metadata answer; raises CannotRun with its last words otherwise."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # asked beforehand: once another broker answers there, its answer would be taken for this one's
        if (error := refusal("127.0.0.1", self.port)) is not None:
            raise CannotRun(f"the broker cannot listen on port {self.port}: {error}")
        self.process = self.program().start()
        process = self.process

        def fail_if_ended() -> None:
            if process.poll() is not None:
                raise CannotRun(f"the broker ended at once: {self.program().last_words()} (log: {self._log})")

        try:
            wait_for_metadata(self.bootstrap_servers, timeout=timeout, meanwhile=fail_if_ended)
        except BaseException:
            self.stop()
            raise
        return process

    def wait_until_saved(self, topics: Iterable[str], *, timeout: float = 15) -> None:
        """Wait until these topics would outlive a kill -9; raises CannotRun.

        A topic that the broker forgot it makes again for whoever asks about it, with one partition.
        """
        saved = self._folder / "kafka.json"
        deadline = time.monotonic() + timeout
        for topic in topics:
            name = f'"name":"{topic}"'.encode()
            while not (saved.exists() and name in saved.read_bytes()):
                if time.monotonic() > deadline:
                    raise CannotRun(f"the broker did not save topic {topic} within {timeout:g} s (log: {self._log})")
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.program().stop(self.process)
            self.process = None

    def program(self) -> Program:
        return Program(
            name="broker",
            command=[
                str(self._binary),
                "start",
                "--only",
                "kafka",
                "--kafka-port",
                str(self.port),
                "--host",
                "127.0.0.1",
                "--data-dir",
                str(self._folder),
            ],
            environment=plain_environment(),
            directory=self._folder,
            log=self._log,
            stop_signal=signal.SIGTERM,
            pass_fds=self._pass_fds,
        )


def wait_for_metadata(bootstrap_servers: str, *, timeout: float, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Wait until a broker tells of its cluster; raises CannotRun after `timeout` seconds.

    `meanwhile` is called again and again and may end the wait by raising.
    """
    deadline = time.monotonic() + timeout
    host, _, port = bootstrap_servers.split(",", maxsplit=1)[0].rpartition(":")
    # a listener first: the client logs an error for every connection that is refused
    while True:
        meanwhile()
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise CannotRun(f"{bootstrap_servers} did not listen within {timeout:g} s: {error}") from None
        time.sleep(0.02)
    while (wrong := _ask(bootstrap_servers)) is not None:
        meanwhile()
        if time.monotonic() > deadline:
            raise CannotRun(f"no metadata from {bootstrap_servers} within {timeout:g} s: {wrong}")
        time.sleep(0.1)


def _ask(bootstrap_servers: str) -> str | None:
    # in a thread of its own: the caller may be inside an event loop already
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(lambda: asyncio.run(_brokerlessness(bootstrap_servers))).result()


async def _brokerlessness(bootstrap_servers: str) -> str | None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=5000)
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
    except KafkaError as error:
        return repr(error)
    finally:
        await admin.close()
    return None if cluster["brokers"] else "it knows of no broker"
