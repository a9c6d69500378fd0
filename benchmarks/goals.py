"""What Muster is to reach, and what the written figures of a run say about it.

A document is what `figures.Findings.write` writes of one script, its JSON read back; documents go by the script's name.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

Document = Mapping[str, Any]
Documents = Mapping[str, Document]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A row of a table of goals; `values` are of the rounds, none where it was not measured.

    `rates` are the medians of both rates that a ratio compares.
    """

    what: str
    unit: Literal["x", "/s", "ms", "MiB"]
    values: Sequence[float]
    goal: str
    reached: bool | None
    rates: tuple[float, float] | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)


class Check(Protocol):
    def outcomes(self, documents: Documents) -> Sequence[Outcome]:
        """What was found; `reached` of each is what its median says."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The rate of one measurement over that of another, round by round; without `at_least` it is told alone."""

    script: str
    of: str
    to: str
    at_least: float | None = None

    def outcomes(self, documents: Documents) -> Sequence[Outcome]:
        ours, theirs = (_values(documents, self.script, name, "rate") for name in (self.of, self.to))
        values = [one / other for one, other in zip(ours, theirs, strict=False)]
        return [
            Outcome(
                what=f"{self.of} : {self.to}",
                unit="x",
                values=values,
                goal="" if self.at_least is None else f"at least {self.at_least:g}x",
                reached=_reached(values, at_least=self.at_least),
                rates=(statistics.median(ours), statistics.median(theirs)) if values else None,
            )
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    script: str
    of: str
    at_least: float

    def outcomes(self, documents: Documents) -> Sequence[Outcome]:
        values = _values(documents, self.script, self.of, "rate")
        reached = _reached(values, at_least=self.at_least)
        return [
            Outcome(what=self.of, unit="/s", values=values, goal=f"at least {self.at_least:,.0f}/s", reached=reached)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """`at_most` in milliseconds."""

    script: str
    of: str
    quantile: Literal["p50", "p99"]
    at_most: float

    def outcomes(self, documents: Documents) -> Sequence[Outcome]:
        values = _values(documents, self.script, self.of, self.quantile)
        return [
            Outcome(
                what=f"{self.of}: {self.quantile}",
                unit="ms",
                values=values,
                goal=f"at most {self.at_most:g} ms",
                reached=_reached(values, at_most=self.at_most),
            )
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """All ratios that the script itself names, of rates; without `at_most` they are told alone."""

    script: str
    at_most: float | None = None

    def outcomes(self, documents: Documents) -> Sequence[Outcome]:
        goal = "" if self.at_most is None else f"at most {self.at_most:g}x"
        found = [
            outcome
            for one in documents.get(self.script, {}).get("ratios", [])
            for outcome in Ratio(script=self.script, of=one["of"], to=one["to"]).outcomes(documents)
        ]
        if not found:
            return [Outcome(what="each operation", unit="x", values=[], goal=goal, reached=None)]
        return [replace(one, goal=goal, reached=_reached(one.values, at_most=self.at_most)) for one in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat:
    """What each process's memory rose by in the second half of the time, as benchmarks/steady.py fits it, in MiB."""

    script: str
    share: float
    mib: float

    def outcomes(self, documents: Documents) -> Sequence[Outcome]:
        goal = f"rises by at most {self.share:.0%} or {self.mib:g} MiB"
        memory: Mapping[str, Any] = documents.get(self.script, {}).get("details", {}).get("memory", {})
        if not memory:
            return [Outcome(what="memory of each process", unit="MiB", values=[], goal=goal, reached=None)]
        return [
            Outcome(
                what=f"memory of {process}, from {trend['begin']:,.0f} MiB",
                unit="MiB",
                values=[trend["rise"]],
                goal=goal,
                reached=_reached([trend["rise"]], at_most=max(self.mib, self.share * trend["begin"])),
            )
            for process, trend in memory.items()
        ]


@dataclass(frozen=True, slots=True)
class Either:
    """One of these is enough."""

    checks: Sequence[Check]

    def outcomes(self, documents: Documents) -> Sequence[Outcome]:
        found = [outcome for check in self.checks for outcome in check.outcomes(documents)]
        verdicts = [outcome.reached for outcome in found if outcome.reached is not None]
        reached = any(verdicts) if verdicts else None
        return [
            replace(outcome, goal=outcome.goal if number == 0 else f"or {outcome.goal}", reached=reached)
            for number, outcome in enumerate(found)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """`scripts` have more on it than `checks` ask, shown whole below."""

    title: str
    scripts: Sequence[str]
    checks: Sequence[Check]
    remark: str = ""


def _values(documents: Documents, script: str, name: str, what: str) -> list[float]:
    figures = documents.get(script, {}).get("rounds", {}).get(name, [])
    return [figure[what] for figure in figures if figure[what] is not None]


def _reached(values: Sequence[float], *, at_least: float | None = None, at_most: float | None = None) -> bool | None:
    if not values or at_least is at_most is None:
        return None
    median = statistics.median(values)
    return (at_least is None or median >= at_least) and (at_most is None or median <= at_most)
