"""How far a long command is: a bar on a terminal, otherwise about a line of JSON a second."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

EVERY: Final = 1.0

Advanced = Callable[[int], None]

console = Console()


def on_terminal() -> bool:
    return sys.stdout.isatty()


@contextmanager
def shown_progress(phase: str, total: int, *, unit: str) -> Generator[Advanced]:
    """Gives what to call with how many are done by now."""
    if on_terminal():
        yield from _bar(phase, total, unit)
    else:
        yield from _lines(phase, total)


def say(line: str) -> None:
    """A line of text on stdout, above the bar if there is one, however long it is."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def tell_line(**members: object) -> None:
    """A line of JSON on stdout."""
    print(orjson.dumps(members, default=str).decode(), flush=True)


def _bar(phase: str, total: int, unit: str) -> Generator[Advanced]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[per_second]:,.0f} " + unit + "/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(phase, total=total, per_second=0.0)
        began = time.monotonic()

        def advanced(done: int) -> None:
            progress.update(task, completed=done, per_second=done / max(time.monotonic() - began, 1e-3))

        yield advanced


def _lines(phase: str, total: int) -> Generator[Advanced]:
    began = told = time.monotonic()
    ended = False

    def advanced(done: int) -> None:
        nonlocal told, ended
        now = time.monotonic()
        if ended or (now - told < EVERY and done < total):
            return
        told, ended = now, done >= total
        per_second = done / max(now - began, 1e-3)
        eta = (total - done) / per_second if per_second else None
        tell_line(
            phase=phase,
            done=done,
            total=total,
            per_second=round(per_second, 1),
            eta_seconds=None if eta is None else round(eta, 1),
        )

    yield advanced
