"""Long work of several phases as it goes: a bar for each at a terminal, lines of JSON for everything else."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from muster.progress import on_terminal, tell_line
from projector.measured import Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """`show` takes every measure; `say` a finding: as words, or as what a line of JSON holds."""

    show: Callable[[Measure], None]
    say: Callable[[str, Mapping[str, Any]], None]
    # seconds between two measures that are worth a look
    pulse: float


@contextmanager
def display() -> Generator[Display]:
    if not on_terminal():
        yield Display(
            show=lambda measure: tell_line(**asdict(measure)), say=lambda _, finding: tell_line(**finding), pulse=1.0
        )
        return
    # what it alone needs
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns) as bar:

        def show(measure: Measure) -> None:
            if measure.phase not in tasks:
                tasks[measure.phase] = bar.add_task(measure.phase, total=None, pace="")
            bar.update(
                tasks[measure.phase], completed=measure.done, total=measure.total, pace=_pace(measure), refresh=True
            )

        yield Display(
            show=show, say=lambda words, _: bar.console.print(words, markup=False, highlight=False), pulse=0.25
        )


def _pace(measure: Measure) -> str:
    words = "" if measure.per_second is None else f"{measure.per_second:,.0f}/s"
    if measure.eta_seconds:
        words += f", {_duration(measure.eta_seconds)} left"
    return words


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
