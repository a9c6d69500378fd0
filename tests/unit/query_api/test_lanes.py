import asyncio

import pytest

from query_api.lanes import Lanes
from runtime.failures import Unavailable

# connections are made when they are used, and here none is
URL = "postgresql://nobody@127.0.0.1/nothing"


async def test_who_has_waited_comes_before_who_asks_just_when_a_lane_is_put_back() -> None:
    lanes = Lanes(URL, options="", number=1, timeout=60)
    lane = await lanes.take()
    served: list[str] = []

    async def ask(name: str) -> None:
        taken = await lanes.take()
        served.append(name)
        lanes.put_back(taken)

    waiting = asyncio.create_task(ask("waited"))
    await asyncio.sleep(0)
    lanes.put_back(lane)
    # before the one that waits has been told
    await ask("came")
    await waiting
    assert served == ["waited", "came"]


async def test_what_was_used_last_is_lent_first_and_all_are_lent() -> None:
    lanes = Lanes(URL, options="", number=2, timeout=60)
    one, other = await lanes.take(), await lanes.take()
    assert one is not other
    lanes.put_back(one)
    lanes.put_back(other)
    assert await lanes.take() is other


async def test_who_waits_too_long_is_told_and_takes_no_lane_away() -> None:
    lanes = Lanes(URL, options="", number=1, timeout=0.05)
    lane = await lanes.take()
    with pytest.raises(Unavailable, match="earlier lists took longer than"):
        await lanes.take()
    lanes.put_back(lane)
    assert await lanes.take() is lane
