"""Processes that copy ranges of the log at the same time, each on a connection of its own."""

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Final

import uvloop

from events.keyring import Keyring, open_keyring
from projector.builds import Build
from projector.lease import connected
from projector.range_copy import SESSION, Copied, copy_range
from runtime import failpoints
from runtime.database import Connection
from runtime.settings import Settings

# ranges handed out beyond those under way, so that no worker waits for the next
AHEAD: Final = 1
# a range has a user once: to remember keys helps nobody
KEYS_KEPT: Final = 1


class WorkerDied(Exception):
    """A worker process ended in the middle of its work: it was killed, by hand or for its memory."""


async def copied_ranges(
    settings: Settings, build: Build, numbers: Iterable[int], *, workers: int, partitions: int
) -> AsyncGenerator[Copied]:
    """Copy these ranges in worker processes; gives each as it is done. Raises BuildGone, WrongKey and WorkerDied."""
    loop = asyncio.get_running_loop()
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(settings, partitions)
    )
    waiting = iter(numbers)
    pending: set[asyncio.Future[Copied]] = set()
    done: set[asyncio.Future[Copied]] = set()
    try:
        while True:
            while len(pending) < workers + AHEAD and (number := next(waiting, None)) is not None:
                pending.add(loop.run_in_executor(pool, _copy, build, number))
            if not pending:
                break
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                yield one.result()
    except BrokenProcessPool:
        raise WorkerDied(
            "a worker process was killed (by hand, or because memory ran out): run the same again, it goes on from here"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        # what else they have to say is of no interest
        await asyncio.gather(*pending, *done, return_exceptions=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worker:
    """What a worker process keeps between ranges."""

    runner: asyncio.Runner
    connection: Connection
    keyring: Keyring
    partitions: int


_worker: _Worker | None = None


def _begin(settings: Settings, partitions: int) -> None:
    global _worker  # noqa: PLW0603 - a pool's process has no other place for what it keeps
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # a terminal's Ctrl-C is the parent's to handle
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    failpoints.arm(settings.failpoints)
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    keyring = Keyring(open_keyring(settings).kek, capacity=KEYS_KEPT)
    connection = runner.run(_connected(settings))
    _worker = _Worker(runner=runner, connection=connection, keyring=keyring, partitions=partitions)


async def _connected(settings: Settings) -> Connection:
    connection = await connected(settings, "muster rebuild worker")
    for setting in SESSION:
        await connection.execute(setting)
    return connection


def _copy(build: Build, number: int) -> Copied:
    assert _worker is not None  # noqa: S101 - the pool's initializer has run
    return _worker.runner.run(
        copy_range(_worker.connection, _worker.keyring, build, number, partitions=_worker.partitions)
    )


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
