"""results.md, made of the documents that the scripts have left: a pure function of them."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from goals import Document, Documents, Outcome, Section

QUICK = "**A quick run, one short round to see that all works: its figures say nothing.**"
INTRODUCTION = (
    "`make bench` writes this page. A table is of the newest run of its script, in which Muster and its rivals take",
    "turns. Load, servers and clients share the machine, so a ratio says more than a rate. A figure is the median of",
    "the rounds, and a ratio the median of the rounds' ratios; beside it stand the least and the most of them.",
)
EMBEDDED = (
    "The broker was the embedded one of the development stack, not Apache Kafka: what passes through a broker says"
    " nothing of Kafka's own speed."
)
# of the run, not of the machine
EACH = ("when", "load before", "broker")


def results(documents: Documents, sections: Sequence[Section]) -> str:
    """The whole page; what was not measured is said to be so."""
    lines = ["# What was measured", "", *INTRODUCTION, ""]
    newest = max(documents.values(), key=lambda document: document["where"]["when"], default=None)
    machine: Mapping[str, Any] = {} if newest is None else newest["where"]
    lines += _pairs((name, value) for name, value in machine.items() if name not in EACH)
    for section in sections:
        lines += _section(section, documents)
    shown = list(dict.fromkeys(script for section in sections for script in section.scripts))
    for script in [*shown, *(script for script in documents if script not in shown)]:
        if script in documents:
            lines += _measured(script, documents[script], machine)
    return "\n".join(lines).rstrip() + "\n"


def _section(section: Section, documents: Documents) -> list[str]:
    lines = [f"## {section.title}", ""]
    if section.remark:
        lines += [section.remark, ""]
    if any(documents[script]["settings"].get("quick") for script in section.scripts if script in documents):
        lines += [QUICK, ""]
    outcomes = [outcome for check in section.checks for outcome in check.outcomes(documents)]
    if outcomes:
        lines += _table(
            ("", "median", "least - most", "goal", "reached"), "lrrll", (_outcome(outcome) for outcome in outcomes)
        )
    missing = [f"`{script}.py`" for script in section.scripts if script not in documents]
    if missing:
        lines += [f"Not measured: {', '.join(missing)}.", ""]
    return lines


def _outcome(outcome: Outcome) -> tuple[str, ...]:
    verdict = {True: "yes", False: "**no**", None: "" if outcome.values else "not measured"}[outcome.reached]
    if not outcome.values:
        return (outcome.what.strip(), "", "", outcome.goal, verdict)
    median = _number(outcome.median, outcome.unit)
    if outcome.rates is not None:
        median += f" ({outcome.rates[0]:,.0f} : {outcome.rates[1]:,.0f})"
    return (outcome.what.strip(), median, _spread(outcome.values, outcome.unit), outcome.goal, verdict)


def _measured(script: str, document: Document, machine: Mapping[str, Any]) -> list[str]:
    lines = [f"## {document['title']}: all of `{script}.py`", ""]
    if document["settings"].get("quick"):
        lines += [QUICK, ""]
    if str(document["where"].get("broker", "")).startswith("embedded"):
        lines += [EMBEDDED, ""]
    lines += ["    " + command for command in document.get("commands", [])] + [""]
    where = document["where"]
    told = {name: value for name, value in where.items() if name in EACH or value != machine.get(name)}
    settings = " ".join(f"{name}={value}" for name, value in document["settings"].items())
    lines += _pairs({**told, "settings": settings}.items())
    lines += _table(
        ("", "per second", "least - most", "p50 ms", "p99 ms", "least - most", "cores"),
        "lrrrrrl",
        (_figures(name, figures) for name, figures in document["rounds"].items()),
    )
    ratios = document.get("ratios", [])
    if ratios:
        lines += _table(
            ("ratio", "median", "least - most"),
            "lrr",
            (
                (
                    f"{one['of'].strip()} : {one['to'].strip()}",
                    _number(one["median"], "x"),
                    _spread((one["least"], one["most"]), "x"),
                )
                for one in ratios
            ),
        )
    memory = document.get("memory_mib", {})
    processes = list(dict.fromkeys(process for found in memory.values() for process in found))
    if processes:
        lines += _table(
            ("MiB resident", *memory, "peak"),
            "l" + "r" * (len(memory) + 1),
            (_memory(process, memory) for process in processes),
        )
    for name, detail in document.get("details", {}).items():
        lines += _detail(name, detail)
    return lines


def _detail(name: str, detail: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table of a column each, where its cells are numbers; samples and the like are in the JSON alone."""
    cells = [cell for column in detail.values() for cell in column.values()]
    if not all(isinstance(cell, int | float) for cell in cells):
        return []
    rows = dict.fromkeys(row for column in detail.values() for row in column)
    return _table(
        (name, *detail),
        "l" + "r" * len(detail),
        ((row, *(f"{column[row]:,.0f}" if row in column else "" for column in detail.values())) for row in rows),
    )


def _figures(name: str, figures: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    rates = [figure["rate"] for figure in figures]
    p50 = [figure["p50"] for figure in figures if figure["p50"] is not None]
    p99 = [figure["p99"] for figure in figures if figure["p99"] is not None]
    taken: dict[str, list[float]] = {}
    for figure in figures:
        for process, cores in figure["cores"].items():
            taken.setdefault(process, []).append(cores)
    medians = {process: statistics.median(cores) for process, cores in taken.items()}
    return (
        name.strip(),
        _number(statistics.median(rates), "/s"),
        _spread(rates, "/s"),
        f"{statistics.median(p50):.1f}" if p50 else "",
        f"{statistics.median(p99):.1f}" if p99 else "",
        _spread(p99, "ms") if p99 else "",
        " ".join(f"{process} {cores:.2f}" for process, cores in medians.items() if cores >= 0.01),
    )


def _memory(process: str, memory: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    found = [moment.get(process) for moment in memory.values()]
    peak = max(one["peak"] for one in found if one is not None)
    return (process, *("" if one is None else f"{one['rss']:,.0f}" for one in found), f"{peak:,.0f}")


def _number(value: float, unit: str) -> str:
    match unit:
        case "x":
            return f"{value:.2f}x"
        case "ms" | "MiB":
            return f"{value:.1f} {unit}"
        case _:
            return f"{value:,.0f}"


def _spread(values: Sequence[float], unit: str) -> str:
    least, most = (
        _number(value, unit).removesuffix("x").removesuffix(f" {unit}") for value in (min(values), max(values))
    )
    return f"{least} - {most}"


def _pairs(pairs: Iterable[tuple[str, Any]]) -> list[str]:
    return [*(f"- {name}: {value}" for name, value in pairs), ""]


def _table(head: Sequence[str], alignment: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """`alignment` has a letter a column: l or r."""
    rule = ["---:" if letter == "r" else "---" for letter in alignment]
    return [*("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)), ""]
