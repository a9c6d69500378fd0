"""What a flood of logins does to everybody else: GET by id while ten times as many log in as can be verified.

    python benchmarks/login_flood.py [--quick] [--json FILE]

Rounds of four phases: quiet; a flood from a thousand addresses, none of which is throttled, so that only the bound on
waiting passwords protects; quiet again; a flood from one address, which is throttled. In each, GETs arrive at a steady
rate at the query API, another process on the same machine. Everything shares its cores: load, APIs and database.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from apis import COMMAND, PASSWORD, QUERY, Apis, answer_of, run_client, running_apis, started_client
from figures import Spread, surroundings
from flooding import Flood, Flooded
from footprint import TICKS, cpu_seconds
from load import quantile
from paced_reads import Pace, Paced
from run import INTERRUPTED, say
from seed import seed_read_model

from muster.failures import CannotRun
from muster.supervisor import StopRequested

ACCOUNTS = 100
EMAIL = "flooded-%06d@example.com"
USERS = 1000
MANY: Final = "flood from many addresses"
ONE: Final = "flood from one address"
QUIET: Final = "quiet"
# enough to keep every thread that hashes busy, few enough that none is refused
PROBING = 8
PROBE_SECONDS = 3.0
# of these the best: what else the machine does is no part of it
PROBES = 3
CONNECTIONS = {MANY: 1000, ONE: 200}
# of many addresses: most logins of a flood are guesses
RIGHT = 0.1
# GETs of the first moments of a phase, while the flood builds up, count to neither
WARM_UP = 1.5
# before the next phase: what the last one left behind is done
REST = 2.0
SAMPLE_EVERY = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """`rss`: MiB that the command API had before, at most during, and after. `cores`: 1.0 is one whole."""

    kind: str
    reads: Paced
    flood: Flooded | None
    rss: tuple[float, float, float]
    cores: dict[str, float]


class FloodBenchmark:
    def __init__(self, apis: Apis, *, seconds: float, reads: float, times: float) -> None:
        self._apis = apis
        self._seconds = seconds
        self._reads = reads
        self._times = times
        self._token = apis.token()
        self._ids = apis.folder / "ids"
        self.capacity = 0.0
        self.verified_p50 = 0.0
        self.phases: list[Phase] = []

    def prepare(self) -> None:
        self._ids.write_text("\n".join(seed_read_model(self._apis.database_url, USERS)))
        self._apis.make_accounts([EMAIL % number for number in range(ACCOUNTS)])
        self._probe()
        # the first one warmed up
        flooded = [self._probe() for _ in range(PROBES)]
        self.capacity = max(sum(one.statuses.get(status, 0.0) for status in ("200", "401")) for one in flooded)
        self.verified_p50 = min(one.verified["p50"] for one in flooded)

    def round(self) -> None:
        for kind in (QUIET, MANY, QUIET, ONE):
            self._apis.forget_guesses()
            self.phases.append(self._phase(kind))
            time.sleep(REST)

    def _probe(self) -> Flooded:
        self._apis.forget_guesses()
        probe = replace(self._flood(MANY, rate=None), at_once=PROBING, seconds=PROBE_SECONDS)
        return Flooded(**run_client("flooding.py", asdict(probe)))

    def _phase(self, kind: str) -> Phase:
        pace = Pace(
            port=self._apis.ports[QUERY],
            token=self._token,
            ids_file=str(self._ids),
            rate=self._reads,
            warm_up=WARM_UP,
            seconds=self._seconds,
        )
        before = self._apis.memory(COMMAND).rss
        cpu, busy, began = cpu_seconds(self._apis.pids), busy_seconds(), time.perf_counter()
        with watched(lambda: self._apis.memory(COMMAND).rss) as seen:
            reads, flooded = self._read_in_quiet(pace) if kind == QUIET else self._read_in_flood(pace, kind)
        seconds = time.perf_counter() - began
        after = cpu_seconds(self._apis.pids)
        cores = {name: (after[name] - cpu[name]) / seconds for name in after} | {"reader": reads.cpu}
        if flooded is not None:
            cores["flooder"] = flooded.cpu
        # and what the interpreters of the clients took to start
        cores["others"] = (busy_seconds() - busy) / seconds - sum(cores.values())
        rss = (before, max(seen), self._apis.memory(COMMAND).rss)
        return Phase(kind=kind, reads=reads, flood=flooded, rss=rss, cores=cores)

    def _read_in_quiet(self, pace: Pace) -> tuple[Paced, None]:
        return Paced(**run_client("paced_reads.py", asdict(pace))), None

    def _read_in_flood(self, pace: Pace, kind: str) -> tuple[Paced, Flooded]:
        flood = self._flood(kind, rate=self.capacity * self._times)
        with started_client("flooding.py", asdict(flood)) as flooding:
            reads = Paced(**run_client("paced_reads.py", asdict(pace)))
            return reads, Flooded(**answer_of(flooding))

    def _flood(self, kind: str, *, rate: float | None) -> Flood:
        return Flood(
            port=self._apis.ports[COMMAND],
            rate=rate,
            # it outlasts the reads
            seconds=WARM_UP + self._seconds + 1,
            connections=CONNECTIONS[kind],
            one_address=kind == ONE,
            email=EMAIL,
            accounts=ACCOUNTS,
            right=RIGHT if kind == MANY else 0.0,
            password=PASSWORD,
        )


def busy_seconds() -> float:
    """Of all cores since the machine started; what a hypervisor took away counts as busy."""
    user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(rest)) / TICKS


@contextmanager
def watched(measure: Callable[[], float]) -> Generator[list[float]]:
    """Measure over and over, on a thread, until left."""
    seen, done = [measure()], threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_EVERY):
            seen.append(measure())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def table(benchmark: FloodBenchmark) -> str:
    kinds = {kind: [phase for phase in benchmark.phases if phase.kind == kind] for kind in (QUIET, MANY, ONE)}
    floods = {kind: [phase.flood for phase in kinds[kind] if phase.flood is not None] for kind in (MANY, ONE)}
    verified = f"{benchmark.capacity:.0f} logins/s are verified with {PROBING} at a time, p50"
    return "\n".join(
        [
            f"{verified} {benchmark.verified_p50:.0f} ms",
            "",
            *_reads(kinds),
            "",
            *_answers(floods),
            "",
            *_latencies(floods),
            "",
            *_memory(kinds),
            "",
            *_cores(kinds),
        ]
    )


def _reads(kinds: Mapping[str, Sequence[Phase]]) -> Iterator[str]:
    yield f"{'GET by id, ms':28}{'n':>7}{'p50':>8}{'p99':>8}{'worst':>8}{'p99 of phases':>18}{'p99 : quiet':>13}"
    quiet = quantile(_pooled(kinds[QUIET]), 0.99)
    for kind, phases in kinds.items():
        pooled = _pooled(phases)
        p99 = Spread.of([phase.reads.p99 for phase in phases])
        spread = f"{p99.least:.1f} - {p99.most:.1f}"
        cells = "".join(f"{quantile(pooled, share):>8.2f}" for share in (0.5, 0.99, 1.0))
        yield f"{kind:28}{len(pooled):>7}{cells}{spread:>18}{quantile(pooled, 0.99) / quiet:>13.2f}"


def _answers(kinds: Mapping[str, Sequence[Flooded]]) -> Iterator[str]:
    found = sorted({status for floods in kinds.values() for flood in floods for status in flood.statuses})
    columns = "".join(f"{status:>7}" for status in found)
    yield f"{'logins, a second':28}{'offered':>8}{columns}{'unsent':>8}{'lost':>6}"
    for kind, floods in kinds.items():
        rates = [statistics.median([flood.statuses.get(status, 0.0) for flood in floods]) for status in found]
        cells = "".join(f"{rate:>7.0f}" for rate in rates)
        offered = statistics.median([flood.offered for flood in floods])
        lost = f"{sum(flood.unsent for flood in floods):>8}{sum(flood.lost for flood in floods):>6}"
        yield f"{kind:28}{offered:>8.0f}{cells}{lost}"


def _latencies(kinds: Mapping[str, Sequence[Flooded]]) -> Iterator[str]:
    yield f"{'login latency, ms':28}{'verified p50':>14}{'p99':>8}{'turned away p50':>18}{'p99':>8}"
    for kind, floods in kinds.items():
        p50, p99 = (statistics.median([flood.verified[share] for flood in floods]) for share in ("p50", "p99"))
        refused_p50, refused_p99 = (
            statistics.median([flood.refused[share] for flood in floods]) for share in ("p50", "p99")
        )
        yield f"{kind:28}{p50:>14.0f}{p99:>8.0f}{refused_p50:>18.1f}{refused_p99:>8.1f}"


def _memory(kinds: Mapping[str, Sequence[Phase]]) -> Iterator[str]:
    yield f"{'command API, MiB resident':28}{'before':>8}{'most':>8}{'after':>8}   (first phase; last phase)"
    for kind, phases in kinds.items():
        cells = ["".join(f"{rss:>8.0f}" for rss in phase.rss) for phase in (phases[0], phases[-1])]
        yield f"{kind:28}{';'.join(cells)}"


def _cores(kinds: Mapping[str, Sequence[Phase]]) -> Iterator[str]:
    yield "cores taken"
    for kind, phases in kinds.items():
        names = dict.fromkeys(name for phase in phases for name in phase.cores)
        cores = {name: statistics.median([phase.cores.get(name, 0.0) for phase in phases]) for name in names}
        yield f"{kind:28}" + "  ".join(f"{name} {taken:.2f}" for name, taken in cores.items())


def _pooled(phases: Sequence[Phase]) -> list[float]:
    return sorted(latency for phase in phases for latency in phase.reads.latencies)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a flood of logins does to everybody else.")
    parser.add_argument("--rounds", type=int, default=5, help="of four phases (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="of each phase (%(default)s)")
    parser.add_argument("--reads", type=float, default=100, help="GETs a second (%(default)s)")
    parser.add_argument("--times", type=float, default=10, help="how many times the capacity floods (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the APIs")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 3.0
    try:
        with running_apis(say=say, **dict(setting.split("=", 1) for setting in options.set)) as apis:
            where = surroundings(apis.database_url, broker="none")
            benchmark = FloodBenchmark(apis, seconds=options.seconds, reads=options.reads, times=options.times)
            say("preparing")
            benchmark.prepare()
            for number in range(options.rounds):
                say(f"round {number + 1} of {options.rounds}")
                benchmark.round()
    except CannotRun as error:
        raise SystemExit(f"login flood: {error}") from None
    except StopRequested:
        raise SystemExit(INTERRUPTED) from None
    print("\n".join(f"{name}: {value}" for name, value in where.items()), "\n")
    print(table(benchmark))
    if options.json is not None:
        document = {
            "where": where,
            "capacity": benchmark.capacity,
            "phases": [asdict(phase) for phase in benchmark.phases],
        }
        options.json.write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
