"""What a projection is called, from where it stands: the worst thing first."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from query_api.projection import projection_of
from query_api.standing import Build, Parked, PartitionStanding, ProjectorSeen, Standing

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BUILD = Build(running=True, phase="copying", shape=2, started_at=NOW)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def partition(number: int = 0, **fields: Any) -> PartitionStanding:  # noqa: ANN401 - fields of any type
    values: dict[str, Any] = {
        "partition": number,
        "published": 100,
        "published_at": ago(0.1),
        "applied": 90,
        "reached": 100,
        "moved_at": ago(3600),
        "waits": False,
        "waiting_since": None,
        "unpublished_since": None,
    }
    return PartitionStanding(**values | fields)


def projector(instance: str = "one", **fields: Any) -> ProjectorSeen:  # noqa: ANN401 - as above
    values: dict[str, Any] = {
        "instance": instance,
        "state": "live",
        "problem": None,
        "partitions": [0, 1],
        "rate": 0.0,
        "seen": 0.5,
        "moved_at": None,
    }
    return ProjectorSeen(**values | fields)


def standing(*partitions: PartitionStanding, **fields: Any) -> Standing:  # noqa: ANN401 - as above
    values: dict[str, Any] = {
        "at": NOW,
        "head": 100,
        "partitions": partitions or (partition(0), partition(1)),
        "projectors": [projector()],
        "parked": Parked(),
        "build": None,
    }
    return Standing(**values | fields)


def judged(found: Standing) -> tuple[str, str | None]:
    projection = projection_of(found)
    return projection.state, projection.why


def waiting(number: int = 0, *, seconds: float, **fields: Any) -> PartitionStanding:  # noqa: ANN401 - as above
    """A partition of which the topic has what was recorded so long ago, the 90th event."""
    return partition(number, **{"reached": 90, "waits": True, "waiting_since": ago(seconds)} | fields)


def test_nothing_missing_is_live() -> None:
    projection = projection_of(standing())
    assert (projection.state, projection.why) == ("live", None)
    assert (projection.head, projection.published, projection.applied) == (100, 100, 100)
    assert (projection.lag_events, projection.lag_seconds) == (0, 0)


def test_an_empty_log_is_live() -> None:
    nothing = partition(published=0, published_at=None, applied=0, reached=0, moved_at=None)
    projection = projection_of(standing(nothing, head=0))
    assert (projection.state, projection.lag_events, projection.moved_at) == ("live", 0, None)


def test_the_lag_is_that_of_the_partition_that_is_furthest_behind() -> None:
    behind = partition(1, reached=40, waits=True, waiting_since=ago(1.5), moved_at=ago(0.2))
    projection = projection_of(standing(partition(0), behind))
    assert (projection.applied, projection.lag_events, projection.lag_seconds) == (40, 60, 1.5)
    assert [one.lag_events for one in projection.partitions] == [0, 60]
    assert [one.lag_seconds for one in projection.partitions] == [0, 1.5]
    assert projection.moved_at == ago(0.2)


@pytest.mark.parametrize(("events", "seconds", "state"), [(1000, 2, "live"), (1001, 0, "catching-up")])
def test_more_than_a_few_events_behind_is_catching_up(events: int, seconds: float, state: str) -> None:
    behind = waiting(reached=0, published=events, seconds=seconds)
    assert judged(standing(behind, head=events))[0] == state


def test_more_than_a_few_seconds_behind_is_catching_up() -> None:
    assert judged(standing(waiting(seconds=2.1))) == ("catching-up", "10 events and 2.1 s behind")


def test_without_a_projector_nothing_is_live_even_if_nothing_is_missing() -> None:
    assert judged(standing(projectors=[])) == ("stalled", "no projector is running")
    killed = projector("projector-0", seen=42)
    assert judged(standing(projectors=[killed])) == (
        "stalled",
        "no projector is running: projector-0 was last seen 42 s ago",
    )
    assert judged(standing(projectors=[killed, projector("two")]))[0] == "live"


def test_a_projector_that_waits_for_an_operator_is_stalled() -> None:
    halted = projector(state="halted", problem="the topic holds position 99")
    told = ("stalled", "projector one is halted: the topic holds position 99")
    assert judged(standing(waiting(seconds=0.1), projectors=[halted])) == told
    assert judged(standing(projectors=[halted])) == told


def test_a_projector_that_tries_again_is_stalled_once_something_waits() -> None:
    retrying = projector(state="retrying", problem="KafkaConnectionError")
    told = ("stalled", "projector one is retrying: KafkaConnectionError")
    assert judged(standing(waiting(seconds=0.1), projectors=[retrying])) == told
    assert judged(standing(projectors=[retrying]))[0] == "live"


def test_a_projector_that_failed_counts_nothing_beside_one_that_works() -> None:
    both = [projector("one", state="halted"), projector("two")]
    assert judged(standing(waiting(seconds=0.1), projectors=both))[0] == "live"


def test_a_partition_that_stands_still_while_something_waits_is_stalled() -> None:
    found = standing(partition(0, moved_at=NOW), waiting(1, seconds=11, moved_at=ago(11)))
    assert judged(found) == ("stalled", "partition 1 stood still for 10 s with events waiting")
    both = standing(waiting(0, seconds=11, moved_at=None), waiting(1, seconds=11))
    assert judged(both) == ("stalled", "partitions 0, 1 stood still for 10 s with events waiting")


@pytest.mark.parametrize(
    "busy",
    [
        # one that had nothing to do for an hour has got its event just now
        waiting(seconds=0.3, moved_at=ago(3600)),
        # far behind, and moving
        waiting(seconds=3600, moved_at=ago(1)),
        # what waits is not in the topic yet
        partition(reached=90, waiting_since=ago(3600), unpublished_since=ago(3600), moved_at=ago(3600)),
    ],
)
def test_a_partition_that_moves_or_has_nothing_to_do_is_not_stalled(busy: PartitionStanding) -> None:
    assert judged(standing(busy))[0] != "stalled"


def test_a_relay_that_publishes_nothing_is_stalled() -> None:
    silent = partition(reached=90, waiting_since=ago(6), unpublished_since=ago(6), published_at=ago(7))
    told = ("stalled", "the relay publishes nothing: an event has waited for 6 s")
    assert judged(standing(silent)) == told
    assert judged(standing(replace(silent, published_at=None))) == told


def test_a_relay_that_works_off_what_has_gathered_is_not_stalled() -> None:
    behind = partition(reached=90, waiting_since=ago(60), unpublished_since=ago(60), published_at=ago(1))
    assert judged(standing(behind))[0] == "catching-up"
    just_now = partition(reached=90, waiting_since=ago(1), unpublished_since=ago(1), published_at=ago(3600))
    assert judged(standing(just_now))[0] == "live"


def test_all_that_stalls_is_told() -> None:
    silent = partition(reached=90, waiting_since=ago(6), unpublished_since=ago(6), published_at=None)
    assert judged(standing(silent, projectors=[])) == (
        "stalled",
        "the relay publishes nothing: an event has waited for 6 s; no projector is running",
    )


def test_what_is_worst_comes_first() -> None:
    parked = Parked(projector=1, users=1)
    assert judged(standing(build=BUILD, parked=parked, projectors=[]))[0] == "stalled"
    assert judged(standing(waiting(seconds=3), build=BUILD, parked=parked))[0] == "catching-up"
    assert judged(standing(build=BUILD, parked=parked)) == ("rebuilding", "the new table is in its phase of copying")
    assert judged(standing(build=replace(BUILD, running=False), parked=parked))[0] == "parked 1"
    assert judged(standing(parked=parked)) == ("parked 1", "users held back from the read model: 1")


def test_a_user_whom_both_hold_back_is_one_who_is_parked() -> None:
    projection = projection_of(standing(parked=Parked(projector=2, relay=1, users=2, records=3)))
    assert (projection.state, projection.kind) == ("parked 5", "parked")
    assert projection.why == (
        "users held back from the read model: 2, users held back from the topics: 1, records of the topic set aside: 3"
    )


def test_the_rate_is_that_of_all_projectors_that_run() -> None:
    seen = [projector("one", rate=10.04), projector("two", rate=5.5), projector("three", rate=99, seen=6)]
    assert projection_of(standing(projectors=seen)).rate == 15.5


def test_a_partition_names_the_projector_that_has_it() -> None:
    seen = [
        projector("gone", partitions=[0, 1, 2], seen=5.1),
        projector("failed", partitions=[0], state="retrying", seen=0.1),
        projector("one", partitions=[0], seen=0.9),
        projector("two", partitions=[1]),
    ]
    projection = projection_of(standing(partition(0), partition(1), partition(2), projectors=seen))
    assert [one.projector for one in projection.partitions] == ["one", "two", None]
