"""How far a long command is, on stderr: a bar for each phase on a terminal, otherwise about a line of JSON a second."""

import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from projector.measured import Measure, Progress

# seconds between two looks
LINE_EVERY: Final = 1.0
BAR_EVERY: Final = 0.25

Advanced = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """`show` takes every measure; `note` what else is to be known meanwhile: in words, and as a line of JSON has it."""

    show: Callable[[Measure], None]
    note: Callable[[str, Mapping[str, Any]], None]
    # seconds between two measures that are worth a look
    pulse: float


@contextmanager
def display() -> Generator[Display]:
    """For work of several phases, which measures itself."""
    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        yield Display(
            show=lambda measure: _tell_line(asdict(measure)),
            note=lambda _, members: _tell_line(members),
            pulse=LINE_EVERY,
        )
        return
    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    tasks: dict[str, TaskID] = {}
    # what is said meanwhile stands above the bar, unless it goes elsewhere
    with Bar(*columns, console=console, redirect_stdout=sys.stdout.isatty()) as bar:

        def show(measure: Measure) -> None:
            if measure.phase not in tasks:
                tasks[measure.phase] = bar.add_task(measure.phase, total=None, pace="")
            bar.update(
                tasks[measure.phase], completed=measure.done, total=measure.total, pace=_pace(measure), refresh=True
            )

        yield Display(show=show, note=lambda words, _: console.print(words, soft_wrap=True), pulse=BAR_EVERY)


def _tell_line(members: Mapping[str, Any]) -> None:
    print(orjson.dumps(members, default=str).decode(), file=sys.stderr, flush=True)


@contextmanager
def shown_progress(phase: str, total: int) -> Generator[Advanced]:
    """For work of one phase: gives what to call with how many are done by now, however often."""
    with display() as shown:
        progress = Progress(shown.show)
        # nothing is told before anything is done: what fails at once is told alone
        progress.enter(phase, total=total, tell=False)
        told = time.monotonic()
        ended = False

        def advanced(done: int) -> None:
            nonlocal told, ended
            progress.reach(done)
            now = time.monotonic()
            if not ended and (done >= total or now - told >= shown.pulse):
                told, ended = now, done >= total
                progress.tell()

        yield advanced


def _pace(measure: Measure) -> str:
    words = "" if measure.per_second is None else f"{measure.per_second:,.0f}/s"
    if measure.eta_seconds:
        words += f", {_duration(measure.eta_seconds)} left"
    return words


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
