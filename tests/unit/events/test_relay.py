"""How long the relay gathers: hardly among few events, and never for long."""

from events.relay import BATCH, GATHER, LONGEST_GATHER, gathering


def test_the_more_events_come_the_longer_it_gathers() -> None:
    gaps = [gathering(found) for found in range(BATCH)]
    assert gaps == sorted(gaps)
    assert gaps[0] == GATHER
    assert gaps[-1] == LONGEST_GATHER


def test_at_five_hundred_events_a_second_it_stays_near_the_least() -> None:
    gap = GATHER
    for _ in range(20):
        gap = gathering(round(500 * gap))
    assert gap < 1.3 * GATHER
