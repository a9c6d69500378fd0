import asyncio

import pytest

from command_api.turns import Turns
from events.user import UserId
from runtime.failures import Unavailable
from runtime.ids import new_id

ADA, GRACE = UserId(new_id()), UserId(new_id())


async def taking(turns: Turns, timeout: float = 10) -> "asyncio.Task[None]":
    task = asyncio.create_task(turns.take(ADA, timeout=timeout))
    await asyncio.sleep(0)
    return task


async def test_turns_come_in_order_and_nobody_waits_for_another_user() -> None:
    turns, told = Turns(), list[int]()

    async def command(number: int) -> None:
        await turns.take(ADA, timeout=10)
        told.append(number)
        await asyncio.sleep(0)
        told.append(number)
        turns.release(ADA)

    await turns.take(GRACE, timeout=10)
    await asyncio.gather(*map(command, range(20)))
    assert told == [number for number in range(20) for _ in range(2)]


async def test_who_waits_too_long_is_unavailable_and_passed_over() -> None:
    turns = Turns()
    await turns.take(ADA, timeout=10)
    with pytest.raises(Unavailable, match="earlier changes"):
        await turns.take(ADA, timeout=0.01)
    last = await taking(turns)
    turns.release(ADA)
    await last


async def test_who_leaves_is_passed_over() -> None:
    turns = Turns()
    await turns.take(ADA, timeout=10)
    leaving, last = await taking(turns), await taking(turns)
    leaving.cancel()
    turns.release(ADA)
    await last
    assert leaving.cancelled()


async def test_who_leaves_as_the_turn_comes_hands_it_on() -> None:
    turns = Turns()
    await turns.take(ADA, timeout=10)
    leaving, last = await taking(turns), await taking(turns)
    turns.release(ADA)
    leaving.cancel()
    await last
    turns.release(ADA)
    await turns.take(ADA, timeout=10)
