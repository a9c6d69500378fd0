import signal
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from muster.embedded.program import Program

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
# one that has lived this long has recovered: its next death is a first one again
STEADY = 60.0


class StopRequested(BaseException):
    """Somebody pressed Ctrl-C or sent SIGTERM."""


@dataclass(slots=True, kw_only=True)
class _Child:
    program: Program
    process: subprocess.Popen[bytes]
    started: float
    deaths: int = 0
    restart_at: float | None = None


class Supervisor:
    """Keeps programs running: one that dies is started again, each time after a longer pause."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._children: dict[str, _Child] = {}

    @property
    def pids(self) -> Mapping[str, int]:
        return {name: child.process.pid for name, child in self._children.items()}

    def start(self, program: Program) -> None:
        self.adopt(program, program.start())

    def adopt(self, program: Program, process: subprocess.Popen[bytes]) -> None:
        """Take charge of one that runs already."""
        self._children[program.name] = _Child(program=program, process=process, started=time.monotonic())

    def ended(self) -> Iterator[tuple[Program, int]]:
        """Give those that do not run, with what Popen calls their return code."""
        for child in self._children.values():
            if (code := child.process.poll()) is not None:
                yield child.program, code

    def look_after(self) -> bool:
        """Restart what died and is due; True when a pid has changed."""
        changed = False
        for name, child in self._children.items():
            now = time.monotonic()
            if child.restart_at is None:
                if (code := child.process.poll()) is None:
                    continue
                if now - child.started > STEADY:
                    child.deaths = 0
                delay = min(FIRST_DELAY * 2**child.deaths, LONGEST_DELAY)
                child.deaths += 1
                child.restart_at = now + delay
                self._say(f"{name} (pid {child.process.pid}) {ending(code)}; starting it again in {delay:g} s")
            elif now >= child.restart_at:
                child.process = child.program.start()
                child.started, child.restart_at = time.monotonic(), None
                self._say(f"{name} started again (pid {child.process.pid})")
                changed = True
        return changed

    def stop(self) -> None:
        """End all, the last started first, each before the next is told."""
        for name, child in reversed(self._children.items()):
            if not child.program.stop(child.process):
                self._say(f"{name} did not stop in time and was killed")
        self._children.clear()


def ending(code: int) -> str:
    """Say how a process ended by what Popen calls its return code."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


@contextmanager
def stop_requests() -> Generator[None]:
    """Raise StopRequested here at the first SIGINT, SIGTERM or SIGHUP; later ones change nothing."""

    def request(_: int, __: FrameType | None) -> None:
        ignore_stop_requests()
        raise StopRequested

    signums = [signal.SIGINT, signal.SIGTERM]
    # nohup has it ignored, and means it
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signums.append(signal.SIGHUP)
    before = {signum: signal.signal(signum, request) for signum in signums}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def ignore_stop_requests() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
