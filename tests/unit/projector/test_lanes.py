import asyncio

import pytest

from projector.lanes import LANES, WORTH, apart, together


def test_few_rows_are_one_transaction() -> None:
    assert apart({0: WORTH // 2 - 1, 3: WORTH // 2}) == [[0, 3]]
    assert apart({0: 0, 1: 0}) == [[0, 1]]
    assert apart({}) == [[]]


def test_of_one_partition_too() -> None:
    assert apart({4: 10 * WORTH}) == [[4]]


def test_many_are_shared_out_evenly_and_no_partition_is_left_out() -> None:
    rows = {0: 700, 1: 2000, 2: 0, 3: 1300, 4: 10}
    lanes = apart(rows)
    assert len(lanes) == LANES
    assert sorted(number for lane in lanes for number in lane) == sorted(rows)
    loads = [sum(rows[number] for number in lane) for lane in lanes]
    assert max(loads) - min(loads) <= 10


async def test_a_failure_is_raised_when_the_others_have_ended() -> None:
    ended: list[str] = []

    async def fail() -> None:
        raise ValueError("no")

    async def take_time() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ended.append("other")

    with pytest.raises(ValueError, match="no"):
        await together([fail(), take_time()])
    assert ended == ["other"]
