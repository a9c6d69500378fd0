"""What a process remembers of persons to be faster, and surely forgets: so that nobody has to be told of an erasure."""

import threading
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# seconds; the same in every process, since the receipt of an erasure states it
FORGOTTEN_WITHIN: Final = 10.0
# two turns, and what a busy machine adds to them
TURN: Final = 0.45


class Fleeting(Generic[K, V]):
    """A mapping that forgets what was put into it after `seconds` at most, however often it was asked for.

    It does so by itself, also in a process that has nothing else to do; and the half of it sooner when it holds
    `capacity`. Safe to use from several threads.
    """

    def __init__(self, *, capacity: int, seconds: float = FORGOTTEN_WITHIN) -> None:
        self._half = max(1, capacity // 2)
        self._seconds = seconds
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._turning: threading.Timer | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K) -> V | None:
        found = self._young.get(key)
        return found if found is not None else self._old.get(key)

    def put(self, key: K, value: V) -> None:
        with self._lock:
            if len(self._young) >= self._half:
                self._young, self._old = {}, self._young
            self._young[key] = value
            self._turn_later()

    def _turn_later(self) -> None:
        if self._turning is None and (self._young or self._old):
            # what comes in right after a turn sees the next two of them
            self._turning = threading.Timer(self._seconds * TURN, self._turn)
            self._turning.daemon = True
            self._turning.start()

    def _turn(self) -> None:
        with self._lock:
            self._young, self._old = {}, self._young
            self._turning = None
            self._turn_later()
