import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from runtime.batching import SMALLEST, Batcher
from runtime.failures import OutcomeUnknown, Overloaded, Unavailable
from tests.waiting import aeventually


class Flush:
    """Answers each number with its square, an odd one above 100 with an exception; holds while the gate is shut."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(numbers))
        await self.gate.wait()
        if 0 in numbers:
            raise ZeroDivisionError
        return [ValueError(str(n)) if n > 100 and n % 2 else n * n for n in numbers]


@pytest.fixture
def flush() -> Flush:
    return Flush()


@pytest.fixture
async def batcher(flush: Flush) -> AsyncIterator[Batcher[int, int]]:
    batcher = Batcher[int, int](flush, limit=3, queue_limit=5, timeout=10, overdue=lambda: OutcomeUnknown("who knows"))
    yield batcher
    flush.gate.set()
    await batcher.close()


async def held(batcher: Batcher[int, int], flush: Flush) -> "asyncio.Task[int]":
    """One call under way, held: whatever is submitted now waits behind it."""
    flush.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await aeventually(lambda: asyncio.sleep(0, bool(flush.batches)))
    return first


async def test_what_waits_goes_together_in_order_up_to_the_limit(batcher: Batcher[int, int], flush: Flush) -> None:
    first = await held(batcher, flush)
    rest = [asyncio.create_task(batcher.submit(n)) for n in (2, 3, 4, 5, 6)]
    await asyncio.sleep(0)
    assert batcher.waiting == 5
    flush.gate.set()
    assert await asyncio.gather(first, *rest) == [1, 4, 9, 16, 25, 36]
    assert flush.batches == [[1], [2, 3, 4], [5, 6]]


async def test_callers_who_come_again_are_kept_in_two_halves() -> None:
    sizes: list[int] = []

    async def flush(numbers: Sequence[int]) -> Sequence[int]:
        sizes.append(len(numbers))
        await asyncio.sleep(0.002)
        return numbers

    async def calling() -> None:
        for number in range(6):
            await batcher.submit(number)

    batcher = Batcher[int, int](flush, limit=512, queue_limit=512, timeout=10)
    await asyncio.gather(*(calling() for _ in range(100)))
    await batcher.close()
    assert sizes[:6] == [50] * 6
    assert sum(sizes) == 600


async def test_few_callers_are_not_kept_apart(flush: Flush) -> None:
    batcher = Batcher[int, int](flush, limit=512, queue_limit=512, timeout=10)
    first = await held(batcher, flush)
    rest = [asyncio.create_task(batcher.submit(n)) for n in range(2, 2 + SMALLEST)]
    await asyncio.sleep(0)
    flush.gate.set()
    await asyncio.gather(first, *rest)
    await batcher.close()
    assert [len(batch) for batch in flush.batches] == [1, SMALLEST]


async def test_the_next_call_begins_before_the_callers_of_the_last_go_on() -> None:
    seen: list[str] = []

    async def flush(items: Sequence[str]) -> Sequence[str]:
        # a call's first step is taken in a task of its own, as runtime.database does it
        return await asyncio.create_task(sent(items))

    async def sent(items: Sequence[str]) -> Sequence[str]:
        seen.append(f"sent {items}")
        await asyncio.sleep(0.01)
        return items

    async def call(batcher: Batcher[str, str], item: str) -> None:
        seen.append(f"{await batcher.submit(item)} goes on")

    batcher = Batcher[str, str](flush, limit=1, queue_limit=5, timeout=10)
    await asyncio.gather(call(batcher, "a"), call(batcher, "b"))
    await batcher.close()
    assert seen == ["sent ['a']", "sent ['b']", "a goes on", "b goes on"]


async def test_above_the_queue_limit_the_answer_is_no_at_once(batcher: Batcher[int, int], flush: Flush) -> None:
    first = await held(batcher, flush)
    rest = [asyncio.create_task(batcher.submit(n)) for n in (2, 3, 4, 5, 6)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await batcher.submit(7)
    flush.gate.set()
    await asyncio.gather(first, *rest)
    assert await batcher.submit(7) == 49
    assert [7] in flush.batches


async def test_an_item_that_never_began_is_unavailable_and_never_begins(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    first = await held(batcher, flush)
    with pytest.raises(Unavailable):
        await batcher.submit(2, timeout=0.01)
    flush.gate.set()
    await first
    assert await batcher.submit(3) == 9
    assert flush.batches == [[1], [3]]


async def test_a_caller_that_leaves_as_its_time_is_up_has_left(batcher: Batcher[int, int], flush: Flush) -> None:
    first = await held(batcher, flush)
    leaving = asyncio.create_task(batcher.submit(2, timeout=0.01))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.01, leaving.cancel)
    # both are due when the loop looks again: the one comes right after the other
    time.sleep(0.05)  # noqa: ASYNC251 - that nothing else has its turn is the point
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert batcher.waiting == 0
    flush.gate.set()
    await first


async def test_an_item_that_had_begun_has_an_unknown_outcome(batcher: Batcher[int, int], flush: Flush) -> None:
    flush.gate.clear()
    with pytest.raises(OutcomeUnknown, match="who knows"):
        await batcher.submit(2, timeout=0.01)
    flush.gate.set()
    assert await batcher.submit(3) == 9


async def test_a_caller_that_left_before_its_turn_is_forgotten(batcher: Batcher[int, int], flush: Flush) -> None:
    first = await held(batcher, flush)
    leaving = asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert batcher.waiting == 0
    flush.gate.set()
    await first
    assert flush.batches == [[1]]


async def test_a_caller_that_left_in_mid_call_harms_nobody(batcher: Batcher[int, int], flush: Flush) -> None:
    first = await held(batcher, flush)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    neighbour = asyncio.create_task(batcher.submit(2))
    flush.gate.set()
    assert await neighbour == 4


async def test_an_exception_reaches_only_its_own_item(batcher: Batcher[int, int], flush: Flush) -> None:
    first = await held(batcher, flush)
    rest = [asyncio.create_task(batcher.submit(n)) for n in (100, 101, 102)]
    await asyncio.sleep(0)
    flush.gate.set()
    answers = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == [1, 10000, 10404]
    assert isinstance(answers[2], ValueError)


async def test_a_failed_call_fails_its_own_batch_only(batcher: Batcher[int, int], flush: Flush) -> None:
    first = await held(batcher, flush)
    rest = [asyncio.create_task(batcher.submit(n)) for n in (2, 0, 3, 4)]
    await asyncio.sleep(0)
    flush.gate.set()
    answers = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [type(answer) for answer in answers] == [int, *[ZeroDivisionError] * 3, int]


async def test_a_call_with_a_result_too_few_fails_for_all_of_its_batch() -> None:
    async def flush(numbers: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0)
        return numbers[1:]

    batcher = Batcher[int, int](flush, limit=3, queue_limit=5, timeout=10)
    answers = await asyncio.gather(*(batcher.submit(n) for n in (1, 2, 3, 4)), return_exceptions=True)
    await batcher.close()
    assert [type(answer) for answer in answers] == [ValueError] * 4


async def test_closing_finishes_what_waits_and_refuses_more(flush: Flush) -> None:
    batcher = Batcher[int, int](flush, limit=3, queue_limit=5, timeout=10)
    first = await held(batcher, flush)
    waiting = asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="stopping"):
        await batcher.submit(3)
    flush.gate.set()
    await closing
    assert await asyncio.gather(first, waiting) == [1, 4]


async def test_closing_what_never_began_is_done_at_once(flush: Flush) -> None:
    await Batcher[int, int](flush, limit=3, queue_limit=5, timeout=10).close()
