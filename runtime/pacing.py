import asyncio
from typing import Final

SHORTEST: Final = 0.1
LONGEST: Final = 5.0
# an attempt that lasted this long was a success for a while: the next one need not wait long
GOOD_RUN: Final = 10.0


class Backoff:
    """How long to pause, in seconds, before work that failed is tried again: doubling, anew after a good run."""

    def __init__(self) -> None:
        self._pause = SHORTEST
        self._began = 0.0

    def attempt(self) -> None:
        self._began = asyncio.get_running_loop().time()

    def pause(self) -> float:
        lasted = asyncio.get_running_loop().time() - self._began
        self._pause = SHORTEST if lasted > GOOD_RUN else min(self._pause * 2, LONGEST)
        return self._pause


async def wait_at_most(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event; False when it did not come in time."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def end_within(task: asyncio.Task[None], seconds: float) -> None:
    """Let a task that was asked to stop come to its end; cancel it when that takes longer."""
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        await asyncio.wait({task})
