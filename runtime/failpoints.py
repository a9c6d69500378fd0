"""Named places where a test can make a process die or stand still, to prove what survives it.

A test starts a process with MUSTER_MODE=test and FAILPOINTS="relay.before_send=kill"; settings refuse the variable
in any other mode. `name=kill@3` acts at the third passage; `pause` stops the process (SIGSTOP), `hang` the one task
that comes by, at places that can wait.
"""

import asyncio
import os
import signal
from dataclasses import dataclass

SIGNALS = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "hang": None}


@dataclass(slots=True, kw_only=True)
class Failpoint:
    signal: signal.Signals | None
    passages_left: int


_armed: dict[str, Failpoint] = {}


def arm(specification: str) -> None:
    """Arm failpoints from `name=kill|pause|hang[@passage],...`; raises ValueError on anything else."""
    _armed.clear()
    for part in filter(None, specification.split(",")):
        name, _, action = part.partition("=")
        verb, _, passage = action.partition("@")
        if verb not in SIGNALS:
            raise ValueError(f"failpoint {part!r}: say name=kill, name=pause or name=hang")
        _armed[name] = Failpoint(signal=SIGNALS[verb], passages_left=int(passage or 1))


def failpoint(name: str) -> None:
    """Die or stop here if a test armed `name`; costs one dictionary lookup otherwise."""
    if (armed := _armed.get(name)) is not None and _due(armed) and armed.signal is not None:
        os.kill(os.getpid(), armed.signal)


async def linger(name: str) -> None:
    """As `failpoint`, at a place that can also hang, until it is cancelled."""
    if (armed := _armed.get(name)) is not None and _due(armed):
        if armed.signal is not None:
            os.kill(os.getpid(), armed.signal)
        else:
            await asyncio.Event().wait()


def _due(armed: Failpoint) -> bool:
    armed.passages_left -= 1
    return armed.passages_left == 0
