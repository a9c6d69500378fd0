"""Whether memory stays as it is: each process's, sampled over minutes in which as much is written and read as can be.

    python benchmarks/steady.py [--quick] [--minutes 10] [--json FILE]

A process is flat if the line fitted through its resident memory over the second half of the time rises by no more than
2 % of where it begins, or by no more than 1 MiB. The first half is for caches to fill and for the allocator to find its
size. The line is that of Theil and Sen (the median of the slopes between all pairs of samples): what a vacuum takes for
some seconds and gives back is no trend. Of PostgreSQL all processes are counted together, without the buffers that they
share: it is told how many there may be, and each page that is read for the first time takes one. The embedded broker
keeps what it is sent in memory: only an Apache Kafka is to be judged.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psycopg
from apis import answer_of, started_client
from connection import request_template
from figures import Figure, Findings
from footprint import cpu_seconds
from load import Load, Loaded
from run import add_common_options, main, say
from stack import Stack

EVERY = 2.0
CONNECTIONS = 16
NUMBERS = 100_000_000
MOST_SHARE, MOST_MIB = 0.02, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Of the second half: MiB at its beginning and a minute, as fitted; `rise` is what it comes to."""

    begin: float
    a_minute: float
    rise: float

    @classmethod
    def of(cls, samples: Sequence[tuple[float, float]]) -> "Trend":
        half = [one for one in samples if one[0] >= (samples[0][0] + samples[-1][0]) / 2]
        pairs = itertools.combinations(half, 2)
        slope = statistics.median((later[1] - earlier[1]) / (later[0] - earlier[0]) for earlier, later in pairs)
        level = statistics.median(found - slope * at for at, found in half)
        return cls(
            begin=level + slope * half[0][0],
            a_minute=slope,
            rise=slope * (half[-1][0] - half[0][0]),
        )

    @property
    def flat(self) -> bool:
        return self.rise <= max(MOST_MIB, MOST_SHARE * self.begin)


class Steady:
    def __init__(self, stack: Stack, options: argparse.Namespace, findings: Findings) -> None:
        self._stack = stack
        self._minutes: float = options.minutes
        self._users: int = options.users
        self._findings = findings
        self._first = itertools.count(NUMBERS, NUMBERS)
        # of the last round, by process: minutes and MiB
        self._samples: dict[str, list[tuple[float, float]]] = {}
        # MiB of its buffers that PostgreSQL has taken
        self._shared: list[float] = []

    def prepare(self) -> None:
        with started_client("load.py", asdict(self._load("create", seconds=300, limit=self._users))) as client:
            answer_of(client)
        self._stack.settle()
        with psycopg.connect(self._stack.database_url) as connection:
            ids = connection.execute("SELECT user_id FROM log.user_keys ORDER BY random()").fetchall()
        (self._stack.folder / "ids").write_text("\n".join(str(row[0]) for row in ids))

    def measurements(self) -> list[Callable[[], None]]:
        return [self._watch]

    def name_ratios(self) -> None:
        """Say of each process what became of its memory; there is nothing to compare."""
        lines = [f"{'memory, MiB':24}{'at first':>10}{'half-way':>10}{'last':>10}{'a minute':>10}{'rise':>8}"]
        for name, samples in self._samples.items():
            trend = Trend.of(samples)
            verdict = "flat" if trend.flat else "GROWS"
            lines.append(
                f"{name:24}{samples[0][1]:>10.1f}{trend.begin:>10.1f}{samples[-1][1]:>10.1f}"
                f"{trend.a_minute:>10.3f}{trend.rise:>8.2f}  {verdict}"
            )
        lines.append(f"{'buffers of postgres':24}{self._shared[0]:>10.1f}{'':10}{self._shared[-1]:>10.1f}")
        print("\n".join(lines) + "\n")
        self._findings.details["memory"] = {
            name: {"samples": samples, **asdict(Trend.of(samples))} for name, samples in self._samples.items()
        }

    def _watch(self) -> None:
        self._samples, self._shared = {}, []
        seconds = self._minutes * 60
        loads = {
            kind: self._load(kind, seconds=seconds, limit=None) for kind in ("create", "update", "get by id", "list")
        }
        before, began = cpu_seconds(self._stack.pids), time.perf_counter()
        with ExitStack() as started:
            clients = {
                kind: started.enter_context(started_client("load.py", asdict(load))) for kind, load in loads.items()
            }
            while (passed := time.perf_counter() - began) < seconds:
                self._sample(passed / 60)
                time.sleep(EVERY)
            after, passed = cpu_seconds(self._stack.pids), time.perf_counter() - began
            cores = {name: (after[name] - before[name]) / passed for name in after}
            for kind, client in clients.items():
                loaded = Loaded(**answer_of(client))
                figure = Figure(rate=loaded.rate, p50=loaded.p50, p99=loaded.p99, refused=loaded.refused, cores=cores)
                self._findings.add(kind, figure)
        self._findings.remember_memory("under load", self._stack.memory())
        say(f"the read model was {self._stack.settle():.1f} s behind")

    def _sample(self, minutes: float) -> None:
        for name, pid in self._stack.pids.items():
            if name == "bare":
                continue
            if name == "postgres":
                family = _family(pid)
                shared = sum(_memory_of(one, "Pss_Shmem") for one in family)
                found = sum(_memory_of(one, "Pss") for one in family) - shared
                self._shared.append(shared)
            else:
                found = _memory_of(pid, "Rss")
            self._samples.setdefault(name, []).append((minutes, found))

    def _load(self, kind: str, *, seconds: float, limit: int | None) -> Load:
        headers = {**self._stack.authorization, "content-type": "application/json"}
        match kind:
            case "create":
                body = {"email": "steady-%(n)012d@example.com", "display_name": "Steady %(n)012d", "roles": ["user"]}
                keyed = {**headers, "idempotency-key": "key-%(n)012d"}
                template = request_template("POST", "/users", headers=keyed, body=json.dumps(body))
            case "update":
                body = json.dumps({"display_name": "Name %(n)012d"})
                template = request_template("PATCH", "/users/%(id)s", headers=headers, body=body)
            case "get by id":
                template = request_template("GET", "/users/%(id)s", headers=self._stack.authorization)
            case _:
                template = request_template("GET", "/users", headers=self._stack.authorization)
        writes = kind in {"create", "update"}
        return Load(
            port=self._stack.ports["command_api" if writes else "query_api"],
            template=template,
            expected=201 if kind == "create" else 200,
            connections=CONNECTIONS,
            seconds=seconds,
            first=next(self._first),
            limit=limit,
            ids_file=str(self._stack.folder / "ids") if kind in {"update", "get by id"} else None,
        )


def _family(pid: int) -> list[int]:
    try:
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except FileNotFoundError:
        return [pid]


def _memory_of(pid: int, measure: Literal["Rss", "Pss", "Pss_Shmem"]) -> float:
    """MiB; nothing of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{measure}:")), 0.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Whether each process's memory is flat under full load.")
    parser.add_argument("--minutes", type=float, default=10, help="of load (%(default)s)")
    parser.add_argument("--users", type=int, default=20_000, help="that are read and updated in turn (%(default)s)")
    add_common_options(parser)
    # memory has no median: the last round's is judged
    parser.set_defaults(rounds=1)
    main("Steady", parser, Steady, quick={"minutes": 1.0, "users": 2000})
