"""How far a long piece of work is, and when it will be done at the pace that was measured."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# before that, a pace says nothing
SHORTEST: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """`per_second` and `eta_seconds` are of this phase, from this run's own pace; None: nothing is measured yet."""

    phase: str
    done: int
    total: int
    per_second: float | None
    eta_seconds: float | None


class Progress:
    """The phase that is under way; `listener` hears of every new phase and of its end."""

    def __init__(self, listener: Callable[[Measure], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._listener = listener
        self._clock = clock
        self._phase = "starting"
        self._done = self._before = self.total = 0
        self._began = self._clock()

    def enter(self, phase: str, *, total: int, done: int = 0, tell: bool = True) -> None:
        """Begin a phase, `done` of which was done before."""
        self._phase, self.total = phase, total
        self._done = self._before = done
        self._began = self._clock()
        if tell:
            self.tell()

    def advance(self, more: int) -> None:
        self._done += more

    def reach(self, done: int) -> None:
        self._done = done

    def tell(self) -> None:
        self._listener(self.measure())

    def measure(self) -> Measure:
        seconds = self._clock() - self._began
        pace = (self._done - self._before) / seconds if seconds > SHORTEST else 0.0
        left = max(0, self.total - self._done)
        return Measure(
            phase=self._phase,
            done=self._done,
            total=max(self.total, self._done),
            per_second=round(pace, 1) if pace else None,
            eta_seconds=round(left / pace, 1) if pace else 0.0 if not left else None,
        )
