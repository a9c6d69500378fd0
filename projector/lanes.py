"""A batch in several transactions at once, each of partitions of its own.

One connection keeps one core of PostgreSQL busy. Partitions have no user in common, and each moves on by itself: of two
transactions one may be refused, and the other is applied all the same.
"""

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from typing import Final

# transactions at once
LANES: Final = 2
# rows from which on a batch is worth a second transaction
WORTH: Final = 500


def apart(rows: Mapping[int, int]) -> Sequence[Collection[int]]:
    """Partitions with so many rows each, shared out among transactions as evenly as their sizes allow."""
    if sum(rows.values()) < WORTH or len(rows) == 1:
        return [list(rows)]
    lanes: list[list[int]] = [[] for _ in range(LANES)]
    loads = [0] * LANES
    for number in sorted(rows, key=lambda number: (-rows[number], number)):
        lightest = loads.index(min(loads))
        lanes[lightest].append(number)
        loads[lightest] += rows[number]
    return [lane for lane in lanes if lane]


async def together(works: Iterable[Awaitable[None]]) -> None:
    """Do all of them. None is cut off by another's failure; the first failure is raised when all have ended."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if outcome is not None:
            raise outcome
