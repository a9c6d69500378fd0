from dataclasses import dataclass

from projector.measured import Measure, Progress


@dataclass(slots=True)
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_time_that_is_left_follows_from_this_runs_own_pace() -> None:
    told: list[Measure] = []
    clock = Clock()
    progress = Progress(told.append, clock=clock)
    progress.enter("copying", total=1000, done=400)
    clock.now += 2
    progress.advance(200)
    progress.tell()
    assert told == [
        Measure(phase="copying", done=400, total=1000, per_second=None, eta_seconds=None),
        Measure(phase="copying", done=600, total=1000, per_second=100.0, eta_seconds=4.0),
    ]


def test_what_nothing_is_left_of_takes_no_time() -> None:
    progress = Progress(lambda _: None, clock=Clock())
    progress.enter("catching-up", total=0)
    assert progress.measure().eta_seconds == 0


def test_without_a_pace_there_is_no_guess() -> None:
    clock = Clock()
    progress = Progress(lambda _: None, clock=clock)
    progress.enter("swapping", total=1)
    clock.now += 3600
    assert progress.measure().eta_seconds is None


def test_a_total_that_was_overtaken_grows_along() -> None:
    progress = Progress(lambda _: None, clock=Clock())
    progress.enter("catching-up", total=10)
    progress.advance(12)
    assert (progress.measure().done, progress.measure().total) == (12, 12)
