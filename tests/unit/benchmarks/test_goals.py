from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from goals import Check, Documents, Either, Flat, Latency, Named, Rate, Ratio
from targets import SECTIONS


def documents(rounds: Mapping[str, Sequence[float]], *, ratios: Sequence[tuple[str, str]] = ()) -> Documents:
    """Of one script, whose every latency is a hundredth of its rate."""
    document: dict[str, Any] = {
        "rounds": {
            name: [{"rate": rate, "p50": None, "p99": rate / 100} for rate in rates] for name, rates in rounds.items()
        },
        "ratios": [{"of": of, "to": to} for of, to in ratios],
    }
    return {"script": document}


def verdicts(check: Check, found: Documents) -> list[bool | None]:
    return [outcome.reached for outcome in check.outcomes(found)]


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    found = documents({"ours": [100, 300, 90], "theirs": [10, 10, 10]})
    (outcome,) = Ratio(script="script", of="ours", to="theirs", at_least=12).outcomes(found)
    assert (outcome.median, list(outcome.values)) == (10, [10, 30, 9])
    assert outcome.rates == (100, 10)
    assert outcome.reached is False


@pytest.mark.parametrize(("at_least", "reached"), [(30, True), (30.1, False), (None, None)])
def test_a_ratio_reaches_its_goal_by_being_equal_to_it(at_least: float | None, reached: bool | None) -> None:  # noqa: FBT001
    found = documents({"ours": [30], "theirs": [1]})
    assert verdicts(Ratio(script="script", of="ours", to="theirs", at_least=at_least), found) == [reached]


def test_a_rate_has_a_least_and_a_latency_a_most() -> None:
    found = documents({"ours": [2000, 1000, 3000]})
    assert verdicts(Rate(script="script", of="ours", at_least=2000), found) == [True]
    assert verdicts(Rate(script="script", of="ours", at_least=2001), found) == [False]
    assert verdicts(Latency(script="script", of="ours", quantile="p99", at_most=20), found) == [True]
    assert verdicts(Latency(script="script", of="ours", quantile="p99", at_most=19), found) == [False]


@pytest.mark.parametrize(
    "check",
    [
        Ratio(script="script", of="ours", to="nobody's", at_least=1),
        Ratio(script="another", of="ours", to="theirs", at_least=1),
        Rate(script="script", of="nobody's", at_least=1),
        Latency(script="script", of="ours", quantile="p50", at_most=1),
        Named(script="another", at_most=1.5),
        Flat(script="another", share=0.02, mib=1),
        Either([Rate(script="another", of="ours", at_least=1)]),
    ],
)
def test_what_was_not_measured_is_neither_reached_nor_missed(check: Check) -> None:
    assert verdicts(check, documents({"ours": [1], "theirs": [1]})) == [None]


def test_one_of_two_goals_is_enough_where_either_will_do() -> None:
    found = documents({"ours": [70], "limit": [100]})
    slow, near = (
        Rate(script="script", of="ours", at_least=100),
        Ratio(script="script", of="ours", to="limit", at_least=0.7),
    )
    assert verdicts(Either([slow, near]), found) == [True, True]
    assert verdicts(Either([slow, Rate(script="script", of="ours", at_least=71)]), found) == [False, False]


def test_each_operation_that_a_script_compares_may_grow_so_far() -> None:
    found = documents(
        {"get, small": [30], "get, big": [20], "list, small": [31], "list, big": [20]},
        ratios=[("get, small", "get, big"), ("list, small", "list, big")],
    )
    assert verdicts(Named(script="script", at_most=1.5), found) == [True, False]
    assert verdicts(Named(script="script"), found) == [None, None]


def test_memory_is_flat_that_rises_by_a_small_share_or_by_next_to_nothing() -> None:
    memory = {
        "big": {"begin": 1000.0, "rise": 19.0},
        "growing": {"begin": 1000.0, "rise": 21.0},
        "small": {"begin": 10.0, "rise": 0.9},
        "shrinking": {"begin": 10.0, "rise": -5.0},
    }
    found = {"script": {"details": {"memory": memory}}}
    assert verdicts(Flat(script="script", share=0.02, mib=1), found) == [True, False, True, True]


def test_without_any_figures_no_goal_is_reached() -> None:
    outcomes = [outcome for section in SECTIONS for check in section.checks for outcome in check.outcomes({})]
    assert outcomes
    assert not any(outcome.reached for outcome in outcomes)
