"""A session's calls go one by one, and none waits longer than its bound for those before it."""

import asyncio

from runtime.database import Session
from runtime.failures import OutcomeUnknown, Unavailable
from tests.proxy import proxy_to

CALLS = 12


async def test_a_call_behind_others_that_are_not_answered_does_not_wait_for_each_of_them(database_url: str) -> None:
    async with proxy_to(database_url) as (proxy, url):
        session = Session(url, application="muster tests", timeout=1)
        assert await session.fetch("SELECT 1 AS one") == [{"one": 1}]
        proxy.freeze_answers()
        loop = asyncio.get_running_loop()
        began = loop.time()
        calls = (session.fetch("SELECT 1 AS one") for _ in range(CALLS))
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(end, Unavailable | OutcomeUnknown) for end in ends)
        # one after the other they would have taken as many seconds as there are calls
        assert loop.time() - began < CALLS / 2

        proxy.cut()
        proxy.thaw()
        assert await session.fetch("SELECT 2 AS two") == [{"two": 2}]
        await session.close()
