import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import Figure, Findings
from footprint import Memory
from goals import Document, Latency, Ratio, Section
from results import EMBEDDED, QUICK, results

SECTION = Section(
    title="Speed",
    scripts=["script"],
    checks=[
        Ratio(script="script", of="ours", to="theirs", at_least=12),
        Latency(script="script", of="ours", quantile="p99", at_most=25),
    ],
)


def document(
    tmp_path: Path,
    *,
    ours: Sequence[float] = (200, 400, 100),
    quick: bool = False,
    broker: str = "Apache Kafka 4.3.1",
    when: str = "2026-01-01T00:00:00+00:00",
) -> Document:
    """What a script writes of its findings, and `make bench` keeps."""
    where = {"when": when, "machine": "2 cores", "load before": 0.5, "broker": broker}
    findings = Findings(title="A script", settings={"rounds": 3, "quick": quick}, where=where)
    for rate in ours:
        findings.add("ours", Figure(rate=rate, p50=1.0, p99=rate / 10, cores={"api": 0.5, "idle": 0.001}))
        findings.add("theirs", Figure(rate=10))
    findings.ratios.append(("ours", "theirs"))
    findings.remember_memory("under load", {"api": Memory(rss=100, peak=120)})
    findings.write(tmp_path / "found.json")
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    return {**found, "commands": ["make bench ARGS=script"]}


def test_a_goal_stands_beside_its_median_spread_and_verdict(tmp_path: Path) -> None:
    page = results({"script": document(tmp_path)}, [SECTION])
    assert "| ours : theirs | 20.00x (200 : 10) | 10.00 - 40.00 | at least 12x | yes |" in page
    assert "| ours: p99 | 20.0 ms | 10.0 - 40.0 | at most 25 ms | yes |" in page


def test_a_goal_that_is_not_reached_says_so(tmp_path: Path) -> None:
    page = results({"script": document(tmp_path, ours=[100, 119])}, [SECTION])
    assert "| ours : theirs | 10.95x (110 : 10) | 10.00 - 11.90 | at least 12x | **no** |" in page


def test_all_figures_are_there_with_the_commands_and_the_machine(tmp_path: Path) -> None:
    page = results({"script": document(tmp_path)}, [SECTION])
    assert "| ours | 200 | 100 - 400 | 1.0 | 20.0 | 10.0 - 40.0 | api 0.50 |" in page
    assert "| theirs | 10 | 10 - 10 |  |  |  |  |" in page
    assert "| api | 100 | 120 |" in page
    assert "    make bench ARGS=script\n" in page
    assert "- machine: 2 cores\n" in page
    assert "- settings: rounds=3 quick=False\n" in page


def test_what_was_not_measured_is_named(tmp_path: Path) -> None:
    page = results({"other": document(tmp_path)}, [SECTION])
    assert "Not measured: `script.py`." in page
    assert "| ours : theirs |  |  | at least 12x | not measured |" in page
    assert "## A script: all of `other.py`" in page


def test_a_quick_run_and_the_embedded_broker_are_told(tmp_path: Path) -> None:
    page = results({"script": document(tmp_path, quick=True, broker="embedded, noida-db 0.2")}, [SECTION])
    assert page.count(QUICK) == 2
    assert EMBEDDED in page
    assert QUICK not in (full := results({"script": document(tmp_path)}, [SECTION]))
    assert EMBEDDED not in full


def test_a_script_that_ran_elsewhere_says_where(tmp_path: Path) -> None:
    elsewhere = document(tmp_path, when="2025-01-01T00:00:00+00:00")
    elsewhere["where"]["machine"] = "64 cores"
    page = results({"script": document(tmp_path), "other": elsewhere}, [SECTION])
    assert page.count("- machine: 2 cores\n") == page.count("- machine: 64 cores\n") == 1


def test_details_are_a_table_where_they_are_numbers(tmp_path: Path) -> None:
    details = {
        "microseconds": {"create": {"api": 400.0, "relay": 50.4}, "list": {"api": 300.0}},
        "memory": {"api": {"samples": [[0.0, 100.0]], "rise": 0.1}},
    }
    page = results({"script": {**document(tmp_path), "details": details}}, [SECTION])
    assert "| microseconds | create | list |" in page
    assert "| relay | 50 |  |" in page
    assert "samples" not in page


def test_a_page_of_nothing_is_a_page() -> None:
    assert "Not measured: `script.py`." in results({}, [SECTION])
