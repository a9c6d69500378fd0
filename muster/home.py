import base64
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from muster.failures import CannotRun
from muster.running import recorded_stack
from muster.secret_files import KEYS

CONTENTS = (
    "broker",
    "children.lock",
    "logs",
    "postgres",
    "run.json",
    "run.json.unfinished",
    "secrets",
    "supervisor.lock",
)


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one development stack: its data, secrets, logs, and run.json while it runs."""

    folder: Path

    @property
    def run_file(self) -> Path:
        return self.folder / "run.json"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def make_keys(self) -> None:
        """Make those that are missing, before there is data: once there is, none is made any more."""
        for name in KEYS:
            self.key_file(name)

    def key_file(self, name: str) -> Path:
        """Give the file of a key: 32 random bytes in base64, made upon first use.

        Raises CannotRun when it is missing though there is data: another one would open nothing of that.
        """
        file = self.folder / "secrets" / name
        if not file.exists() and (self.folder / "postgres").exists():
            raise CannotRun(
                f"{file} is missing, and the users in {self.folder} cannot be read without it: put it back, or delete"
                " them with `muster reset`"
            )
        return self._secret_file(name, lambda: base64.b64encode(secrets.token_bytes(32)).decode())

    def secret_file(self, name: str) -> Path:
        """Give the file of a password, made upon first use; it is as long as PASSWORD_MIN_LENGTH may ask for."""
        return self._secret_file(name, lambda: secrets.token_urlsafe(48))

    def secret(self, name: str) -> str:
        """Give a password, made upon first use."""
        return self.secret_file(name).read_text().strip()

    def log_file(self, name: str) -> Path:
        """Give a process's new log; what it wrote in the stack's last run is kept beside it as NAME.log.1."""
        log = self.logs / f"{name}.log"
        if log.exists():
            log.replace(self.logs / f"{name}.log.1")
        log.touch(mode=0o600)
        return log

    @contextmanager
    def held(self, *, wait: float = 40) -> Generator[int]:
        """Hold the home for one supervisor; gives a descriptor that its children must inherit.

        Raises CannotRun when another supervisor holds it. Children of a supervisor that was killed are waited
        for as long as they hold that descriptor: they are still writing to what the next ones would open.
        """
        try:
            self._make()
            own, children = self._lock_file("supervisor.lock"), self._lock_file("children.lock")
        except PermissionError as error:
            raise CannotRun(
                f"{error.filename} belongs to another user: become that user, or name another home in MUSTER_HOME"
            ) from None
        with own, children:
            if not _locked(own):
                pid = own.read().strip() or "?"
                raise CannotRun(f"the stack in {self.folder} already runs (pid {pid}){self._whereabouts()}")
            own.truncate(0)
            own.write(f"{os.getpid()}\n")
            own.flush()
            deadline = time.monotonic() + wait
            while not _locked(children):
                if time.monotonic() > deadline:
                    raise CannotRun(
                        f"processes of an earlier stack in {self.folder} still run: "
                        f"`fuser {self.folder / 'children.lock'}` names them"
                    )
                time.sleep(0.05)
            self.run_file.unlink(missing_ok=True)
            yield children.fileno()

    def drop(self) -> None:
        """Delete the stack's data; raises CannotRun while a stack runs here."""
        if not self.folder.exists():
            return
        with self.held():
            for name in CONTENTS:
                path = self.folder / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        self.folder.rmdir()

    def _make(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            strangers = [path.name for path in self.folder.iterdir() if path.name not in CONTENTS]
        except PermissionError:
            raise
        except OSError as error:
            raise CannotRun(
                f"{self.folder} cannot be a folder ({error.strerror}): name another in MUSTER_HOME"
            ) from None
        if strangers:
            raise CannotRun(
                f"{self.folder} holds other things ({strangers[0]}): give the stack a folder of its own in MUSTER_HOME"
            )
        if self.folder.stat().st_mode & 0o077:
            self.folder.chmod(0o700)
        self.logs.mkdir(mode=0o700, exist_ok=True)

    def _secret_file(self, name: str, make: Callable[[], str]) -> Path:
        folder = self.folder / "secrets"
        file = folder / name
        if not file.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
            # renamed when it is written: a key that data depends on is whole or it is not there
            aside = folder / f".{name}.unfinished"
            aside.touch(mode=0o600)
            aside.write_text(f"{make()}\n")
            aside.rename(file)
        return file

    def _lock_file(self, name: str) -> IO[str]:
        return os.fdopen(os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600), "r+")

    def _whereabouts(self) -> str:
        stack = recorded_stack(self.run_file)
        return f": {stack.command_url}/docs and {stack.query_url}/docs" if stack else " and is starting"


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def home_at(named: str | None) -> Home:
    """Give the home that MUSTER_HOME names, else .muster in the repository, else in the working folder."""
    if named:
        return Home(Path(named).expanduser().resolve())
    repository = Path(__file__).resolve().parent.parent
    if not (repository / "pyproject.toml").exists():
        repository = Path.cwd()
    return Home(repository / ".muster")
