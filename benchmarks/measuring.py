"""Runs a client in a process of its own beside a stack and tells what came of it."""

import time
from dataclasses import asdict

from clients import run_script
from figures import Figure
from footprint import cpu_seconds
from freshness import Fresh, Freshness
from load import Load, Loaded
from log_alone import Logged, LogLoad
from stack import FOLDER, Stack


def cores_at_rest(stack: Stack, *, seconds: float = 3.0) -> dict[str, float]:
    """What the processes take of the machine while nobody asks anything of them."""
    before, began = cpu_seconds(stack.pids), time.perf_counter()
    time.sleep(seconds)
    return _cores(stack, before, time.perf_counter() - began)


def measured_load(stack: Stack, load: Load) -> Figure:
    """Loads without an answer in 15 s, or with a lost connection, raise."""
    before, began = cpu_seconds(stack.pids), time.perf_counter()
    loaded = Loaded(**run_script(FOLDER / "load.py", asdict(load)))
    cores = _cores(stack, before, time.perf_counter() - began) | {"client": loaded.cpu}
    return Figure(rate=loaded.rate, p50=loaded.p50, p99=loaded.p99, refused=loaded.refused, cores=cores)


def measured_freshness(asked: Freshness) -> tuple[Figure, Figure]:
    """The POSTs alone, and from their acknowledgement to the read."""
    fresh = Fresh(**run_script(FOLDER / "freshness.py", asdict(asked)))
    posted = Figure(rate=fresh.rate, p50=fresh.posted_p50, p99=fresh.posted_p99)
    return posted, Figure(rate=fresh.rate, p50=fresh.p50, p99=fresh.p99, worst=fresh.worst)


def measured_log(stack: Stack, asked: LogLoad) -> Figure:
    before, began = cpu_seconds(stack.pids), time.perf_counter()
    logged = Logged(**run_script(FOLDER / "log_alone.py", asdict(asked)))
    cores = _cores(stack, before, time.perf_counter() - began) | {"caller": logged.cpu}
    return Figure(rate=logged.rate, p50=logged.p50, p99=logged.p99, cores=cores)


def _cores(stack: Stack, before: dict[str, float], seconds: float) -> dict[str, float]:
    after = cpu_seconds(stack.pids)
    return {name: (after[name] - before[name]) / seconds for name in after}
