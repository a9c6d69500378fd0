"""How a projector is, in figures."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SPAN: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What a projector says of itself: `rate` in events a second, `still` the seconds since it last moved."""

    state: str
    problem: str | None
    partitions: Sequence[int]
    rate: float
    still: float


class Movement:
    """When something last moved, and how many events a second were applied over the last SPAN seconds."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._moved = now
        self._applied: deque[tuple[float, int]] = deque()

    def moved(self, now: float, events: int = 0) -> None:
        self._moved = now
        if events:
            self._applied.append((now, events))
            self._forget(now)

    def still(self, now: float) -> float:
        return now - self._moved

    def rate(self, now: float) -> float:
        self._forget(now)
        span = min(SPAN, max(now - self._began, 1.0))
        return sum(events for _, events in self._applied) / span

    def _forget(self, now: float) -> None:
        while self._applied and self._applied[0][0] < now - SPAN:
            self._applied.popleft()
