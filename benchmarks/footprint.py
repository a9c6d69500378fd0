"""What processes take of the machine, from /proc."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """MiB: resident now, and the most that ever was."""

    rss: float
    peak: float


def memory_of(pid: int) -> Memory:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return Memory(rss=int(found["VmRSS"][0]) / 1024, peak=int(found["VmHWM"][0]) / 1024)


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """The processor time that each of these processes has taken, the children of each counted with it."""
    own: dict[int, float] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            # the name before the last bracket may hold anything
            fields = stat.rpartition(")")[2].split()
            pid = int(entry.name)
            parents[pid] = int(fields[1])
            # its own time and that of children that have ended
            own[pid] = sum(map(int, fields[11:15])) / TICKS
    return {
        name: own.get(pid, 0.0) + sum(own[child] for child, parent in parents.items() if parent == pid)
        for name, pid in pids.items()
    }
