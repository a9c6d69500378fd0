"""What was measured: rounds, their medians and spread, ratios, and where; as a table and as JSON."""

import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psycopg
from footprint import Memory

PACKAGES = (
    *("fastapi", "uvicorn", "uvloop", "httptools", "psycopg", "pydantic", "aiokafka", "argon2-cffi"),
    # of rivals; they may not be there
    *("sqlalchemy", "psycopg2-binary", "eventsourcing"),
)
SHOWN = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measurement: rate a second, latencies in milliseconds, cores taken by each process (1.0 is one whole)."""

    rate: float
    p50: float | None = None
    p99: float | None = None
    worst: float | None = None
    refused: Mapping[str, int] = field(default_factory=dict[str, int])
    cores: Mapping[str, float] = field(default_factory=dict[str, float])
    settled_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median=statistics.median(values), least=min(values), most=max(values))


@dataclass(slots=True, kw_only=True)
class Findings:
    """All rounds of one run; `ratios` name two measurements each, compared round by round.

    `details` are for the JSON file alone: what a benchmark shows in a table of its own.
    """

    title: str
    settings: Mapping[str, Any]
    where: Mapping[str, Any]
    rounds: dict[str, list[Figure]] = field(default_factory=dict[str, list[Figure]])
    ratios: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    memory: dict[str, dict[str, Memory]] = field(default_factory=dict[str, dict[str, Memory]])
    cores_at_rest: dict[str, float] = field(default_factory=dict[str, float])
    details: dict[str, Any] = field(default_factory=dict[str, Any])

    def add(self, name: str, figure: Figure) -> None:
        self.rounds.setdefault(name, []).append(figure)

    def remember_memory(self, moment: str, memory: Mapping[str, Memory]) -> None:
        """Keep the highest that each process had at this kind of moment."""
        held = self.memory.setdefault(moment, {})
        for process, found in memory.items():
            if process not in held or found.rss > held[process].rss:
                held[process] = found

    def ratio(self, name: str, beside: str) -> Spread:
        pairs = zip(self.rounds[name], self.rounds[beside], strict=True)
        return Spread.of([figure.rate / other.rate for figure, other in pairs])

    def table(self) -> str:
        lines = [self.title, "", *(f"  {name}: {value}" for name, value in self.where.items()), ""]
        lines += [f"  {name}: {value}" for name, value in self.settings.items()]
        lines += ["", f"{'':34}{'per second':>11}{'least - most':>18}{'p50 ms':>9}{'p99 ms':>9}  cores"]
        for name, figures in self.rounds.items():
            rate = Spread.of([figure.rate for figure in figures])
            spread = f"{rate.least:,.0f} - {rate.most:,.0f}"
            line = f"{name:34}{rate.median:>11,.0f}{spread:>18}"
            line += _cell([figure.p50 for figure in figures]) + _cell([figure.p99 for figure in figures])
            line += "  " + " ".join(f"{process} {cores:.2f}" for process, cores in _cores(figures).items())
            lines.append(line.rstrip() + _remark(figures))
        lines += ["", f"{'ratio':70}{'median':>8}{'least - most':>16}"]
        for name, beside in self.ratios:
            ratio = self.ratio(name, beside)
            spread = f"{ratio.least:.2f} - {ratio.most:.2f}"
            lines.append(f"{name + ' : ' + beside:70}{ratio.median:>8.2f}{spread:>16}")
        moments = list(self.memory)
        lines += ["", f"{'memory, MiB resident':34}" + "".join(f"{moment:>22}" for moment in [*moments, "peak"])]
        last = self.memory[moments[-1]] if moments else {}
        for process, memory in last.items():
            cells = [self.memory[moment][process].rss for moment in moments] + [memory.peak]
            lines.append(f"{process:34}" + "".join(f"{cell:>22,.0f}" for cell in cells))
        at_rest = " ".join(f"{process} {cores:.2f}" for process, cores in self.cores_at_rest.items())
        lines += ["", f"cores taken at rest, before any load: {at_rest}"]
        return "\n".join(lines) + "\n"

    def write(self, file: Path) -> None:
        summary = {
            name: {
                "rate": asdict(Spread.of([figure.rate for figure in figures])),
                "p50": _median([figure.p50 for figure in figures]),
                "p99": _median([figure.p99 for figure in figures]),
            }
            for name, figures in self.rounds.items()
        }
        ratios = [{"of": name, "to": beside, **asdict(self.ratio(name, beside))} for name, beside in self.ratios]
        document = {
            "title": self.title,
            "where": self.where,
            "settings": self.settings,
            "summary": summary,
            "ratios": ratios,
            "cores_at_rest": self.cores_at_rest,
            "memory_mib": {
                moment: {process: asdict(found) for process, found in memory.items()}
                for moment, memory in self.memory.items()
            },
            "details": self.details,
            "rounds": {name: [asdict(figure) for figure in figures] for name, figures in self.rounds.items()},
        }
        file.write_text(json.dumps(document, indent=2) + "\n")


def surroundings(database_url: str, *, broker: str | None) -> dict[str, Any]:
    """Tell the machine and the versions; refuses a server that does not keep what it acknowledged."""
    with psycopg.connect(database_url) as connection:
        postgres = connection.execute("SELECT version()").fetchone()
        rows = connection.execute("SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name", (list(SHOWN),))
        shown = {str(name): str(value) for name, value in rows.fetchall()}
    assert postgres is not None
    assert shown["fsync"] == shown["synchronous_commit"] == "on", shown
    models = {line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")}
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    if broker is None:
        outside = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        broker = f"embedded, noida-db {version('noida-db')}" if outside is None else f"the one at {outside}"
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{', '.join(sorted(models)) or platform.machine()}, {os.cpu_count()} cores, {memory >> 20} GiB",
        "system": platform.platform(),
        "load before": os.getloadavg()[0],
        "python": platform.python_version(),
        "postgres": f"{postgres[0].partition(',')[0]}; {' '.join(f'{name}={value}' for name, value in shown.items())}",
        "broker": broker,
        "packages": " ".join(_packages()),
    }


def _packages() -> Iterator[str]:
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _cell(values: Sequence[float | None]) -> str:
    median = _median(values)
    return f"{'' if median is None else f'{median:.1f}':>9}"


def _cores(figures: Sequence[Figure]) -> dict[str, float]:
    """Medians of what took at least a hundredth of a core."""
    names = dict.fromkeys(name for figure in figures for name in figure.cores)
    medians = {name: statistics.median([figure.cores.get(name, 0.0) for figure in figures]) for name in names}
    return {name: cores for name, cores in medians.items() if cores >= 0.01}


def _remark(figures: Sequence[Figure]) -> str:
    refused: dict[str, int] = {}
    for figure in figures:
        for status, count in figure.refused.items():
            refused[status] = refused.get(status, 0) + count
    remark = "".join(f"  {count} x {status}" for status, count in refused.items())
    worst = [figure.worst for figure in figures if figure.worst is not None]
    if worst:
        remark += f"  worst {max(worst):.0f} ms"
    settled = _median([figure.settled_after for figure in figures])
    return remark if settled is None else f"{remark}  readable {settled:.1f} s after the end"
