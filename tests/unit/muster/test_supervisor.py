import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.embedded.program import Program, plain_environment
from muster.supervisor import StopRequested, Supervisor, ending, stop_requests
from tests.waiting import eventually


def program(folder: Path, name: str, code: str) -> Program:
    return Program(
        name=name,
        command=[sys.executable, "-c", code],
        environment=plain_environment(),
        directory=folder,
        log=folder / f"{name}.log",
    )


WAIT = "import signal; print('up', flush=True); signal.pause()"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(said: list[str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(said.append)
    yield supervisor
    supervisor.stop()


def test_one_that_was_killed_is_started_again_and_told_of(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
    supervisor.start(program(tmp_path, "waiter", WAIT))
    before = supervisor.pids["waiter"]
    assert not supervisor.look_after()
    os.kill(before, signal.SIGKILL)
    eventually(supervisor.look_after, what="a restart")
    after = supervisor.pids["waiter"]
    assert said == [
        f"waiter (pid {before}) was ended by SIGKILL; starting it again in 0.5 s",
        f"waiter started again (pid {after})",
    ]


def test_one_that_dies_again_waits_longer(supervisor: Supervisor, said: list[str], tmp_path: Path) -> None:
    supervisor.start(program(tmp_path, "failing", "raise SystemExit(3)"))
    eventually(lambda: supervisor.look_after() or len(said) >= 3, what="the first death")
    eventually(lambda: not supervisor.look_after() and len(said) >= 3, what="the second death")
    assert "exited with 3; starting it again in 0.5 s" in said[0]
    assert "exited with 3; starting it again in 1 s" in said[2]


def test_all_are_ended_the_last_one_first(said: list[str], tmp_path: Path) -> None:
    supervisor = Supervisor(said.append)
    ends = tmp_path / "ends"
    code = (
        "import signal, sys, pathlib\n"
        "def end(*_):\n"
        f"    pathlib.Path({str(ends)!r}).open('a').write('NAME ')\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', flush=True)\n"
        "signal.pause()\n"
    )
    for name in ("first", "second"):
        supervisor.start(program(tmp_path, name, code.replace("NAME", name)))
        log = tmp_path / f"{name}.log"
        eventually(lambda log=log: "up" in log.read_text(), what=f"{name} is up")
    supervisor.stop()
    assert ends.read_text() == "second first "


def test_one_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    deaf = Program(
        name="deaf",
        command=[sys.executable, "-c", f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}"],
        environment=plain_environment(),
        directory=tmp_path,
        log=tmp_path / "log",
        stop_timeout=0.1,
    )
    process = deaf.start()
    eventually(lambda: "up" in deaf.log.read_text(), what="it is up")
    assert not deaf.stop(process)
    assert process.returncode == -signal.SIGKILL


def test_a_second_stop_request_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests():
        with pytest.raises(StopRequested):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exited with 0"), (-9, "was ended by SIGKILL"), (-200, "was ended by signal 200")]
)
def test_an_ending_is_told_in_words(code: int, words: str) -> None:
    assert ending(code) == words
