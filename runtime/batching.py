import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from runtime.failures import Overloaded, Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

# of fewer, a call costs more than it gains to let callers go on beside it
SMALLEST: Final = 16


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    answer: "asyncio.Future[Result]"
    taken: bool = field(default=False)


class Batcher(Generic[Item, Result]):
    """Gathers the items that wait at a moment into one call (group commit; coalesced reads).

    One call is under way at a time, so batches keep the order in which items arrived. `flush` gets 1 to `limit` items
    and returns one result or exception an item, in the same order; an exception that it raises goes to all of them.
    An item that is not answered within `timeout` seconds fails with Unavailable if its call had not begun (it never
    will then) and with `overdue()` if it had.

    Callers that come again as soon as they are answered are kept in two halves: while the call of one is under way,
    the callers of the other go on.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        limit: int,
        queue_limit: int,
        timeout: float,
        overdue: Callable[[], Exception] = Unavailable,
    ) -> None:
        self._flush = flush
        self._limit = limit
        self._queue_limit = queue_limit
        self._timeout = timeout
        self._overdue = overdue
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._resting: asyncio.Future[None] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._closing = False
        # of the last call's batch: these may be about to come again
        self._answered = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def submit(self, item: Item, *, timeout: float | None = None) -> Result:
        """Wait for the item's result, at most `timeout` seconds; raises Overloaded at once when the queue is full."""
        bound = self._timeout if timeout is None else timeout
        if self._closing:
            raise Unavailable("this process is stopping")
        if len(self._queue) >= self._queue_limit:
            raise Overloaded(f"{len(self._queue)} requests are waiting already")
        loop = asyncio.get_running_loop()
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        waiting: _Waiting[Item, Result] = _Waiting(item, loop.create_future())
        self._queue.append(waiting)
        self._go_on()
        # asyncio.timeout takes several times as long as a timer that is never due
        timer = loop.call_later(bound, self._expire, waiting, bound)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            if not waiting.taken:
                self._queue.remove(waiting)
            raise
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Finish what is waiting, then refuse more."""
        self._closing = True
        self._go_on()
        if self._worker is not None:
            await self._worker

    def _expire(self, waiting: _Waiting[Item, Result], bound: float) -> None:
        if waiting.answer.done():
            return
        if waiting.taken:
            waiting.answer.set_exception(self._overdue())
        else:
            self._queue.remove(waiting)
            # a caller who leaves at this moment must not look for it there
            waiting.taken = True
            waiting.answer.set_exception(Unavailable(f"not begun within {bound:g} s"))

    def _go_on(self) -> None:
        resting, self._resting = self._resting, None
        if resting is not None and not resting.done():
            resting.set_result(None)

    async def _work(self) -> None:
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._resting = asyncio.get_running_loop().create_future()
                await self._resting
                continue
            # in a call of its own: a worker at rest would hold on to the last results, which may be a person's record
            await self._work_off()

    async def _work_off(self) -> None:
        batch = self._take()
        results: Sequence[Result | Exception]
        try:
            results = await self._flush([waiting.item for waiting in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} items")
        except Exception as error:  # noqa: BLE001 - whatever failed, the callers are told, never left waiting
            results = [error] * len(batch)
        self._answered = len(batch)
        if self._queue:
            # behind the next call's own first step: what is called works while the callers go on
            asyncio.get_running_loop().call_soon(_answer, batch, results)
        else:
            _answer(batch, results)

    def _take(self) -> "list[_Waiting[Item, Result]]":
        """The next batch, from the front of the queue: half of those who wait or have just been answered."""
        half = (len(self._queue) + self._answered + 1) // 2
        batch = [self._queue.popleft() for _ in range(min(self._limit, len(self._queue), max(SMALLEST, half)))]
        for waiting in batch:
            waiting.taken = True
        return batch


def _answer(batch: "Sequence[_Waiting[Item, Result]]", results: Sequence[Result | Exception]) -> None:
    for waiting, result in zip(batch, results, strict=True):
        if waiting.answer.done():
            continue
        if isinstance(result, Exception):
            waiting.answer.set_exception(result)
        else:
            waiting.answer.set_result(result)
