"""Waiting for conditions: a test never waits for seconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")


def eventually(probe: Callable[[], Found], *, what: str = "the condition", timeout: float = 30) -> Found:
    """Ask until the answer is truthy and give it; raises AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {timeout:g} s")
        time.sleep(0.02)
    return found


async def aeventually(
    probe: Callable[[], Awaitable[Found]],
    *,
    what: str = "the condition",
    timeout: float = 30,
) -> Found:
    """As `eventually`, for a coroutine."""
    deadline = time.monotonic() + timeout
    while not (found := await probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {timeout:g} s")
        await asyncio.sleep(0.02)
    return found
