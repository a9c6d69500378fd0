import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from muster.failures import CannotRun

SETPRIV = "setpriv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How one child process is run and ended.

    It is told `stop_signal` to end, and is sent the same by the kernel when its parent dies in any way (where
    util-linux is installed). The kernel means the parent's thread: start it from one that lives on.
    `user` makes root's child run as another uid, which keeps the right to reach files that root could reach.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 30
    user: int | None = None
    pass_fds: Sequence[int] = ()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it with its output appended to `log`, out of reach of the terminal's Ctrl-C."""
        with self.log.open("ab") as log:
            os.fchmod(log.fileno(), 0o600)
            return subprocess.Popen(
                [*tether(self.stop_signal, user=self.user), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=dict(self.environment),
                # a group and not a session of its own: Linux weighs sessions against each other whatever the priorities
                # within them, and the threads that hash passwords are to yield to every process of the stack
                process_group=0,
                pass_fds=self.pass_fds,
            )

    def stop(self, process: subprocess.Popen[bytes]) -> bool:
        """End it and wait for that; False when it had to be killed."""
        if process.poll() is not None:
            return True
        process.send_signal(self.stop_signal)
        try:
            process.wait(self.stop_timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
        return True

    def last_words(self) -> str:
        """Give the line of its log that best tells why it ended: the last fatal one, else the last one."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 4096))
            lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        fatal = [line for line in lines if "FATAL" in line]
        return (fatal or lines or ["it said nothing"])[-1].strip()


def tether(signum: signal.Signals, *, user: int | None = None) -> list[str]:
    """Give the words before a command that bind it to its parent's life, and run it as `user`."""
    setpriv = shutil.which(SETPRIV)
    if setpriv is None:
        if user is not None:
            raise CannotRun("PostgreSQL refuses to run as root: install util-linux (setpriv), or be another user")
        return []
    words = [setpriv]
    if user is not None:
        words += [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        # program and data may lie under a folder that only root may enter: no folder is opened up for them;
        # the securebit lets access(2), by which PostgreSQL looks for its own files, count the capability too
        words += ["--securebits=+no_setuid_fixup", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return [*words, "--pdeathsig", signum.name.removeprefix("SIG"), "--"]


def plain_environment() -> dict[str, str]:
    """Give the part of this environment that any program needs, without anyone's settings."""
    wanted = ("PATH", "HOME", "TMPDIR", "TZ")
    return {"LC_ALL": "C.UTF-8", **{name: os.environ[name] for name in wanted if name in os.environ}}
