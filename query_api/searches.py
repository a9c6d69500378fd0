"""Pages of whom a search finds: those of whom the filters of a list are true."""

import asyncio
from typing import Final

from query_api.lanes import Lanes
from query_api.listing import COMMON, Listing, Question, question_of
from query_api.pages import PageNow, page_now
from runtime.database import Connection, Row
from runtime.failures import Overloaded

CONNECTIONS: Final = 3
# Which index serves a filter depends on how common its value is. And to start workers took longer than to find a page:
# among a million users 21 ms instead of 8 for a role that one in a hundred has.
# No page is to read a whole table: there is an index of each order, and of each part.
PLANNED_ANEW: Final = "-c plan_cache_mode=force_custom_plan -c max_parallel_workers_per_gather=0 -c enable_seqscan=off"


class Searches:
    """Reads pages; who asks for the same list at the same moment shares one query, which began after each had asked.

    A list is under way once at most: who asks for it meanwhile waits for the next.
    """

    def __init__(self, url: str, *, timeout: float, queue_limit: int) -> None:
        self._timeout = timeout
        self._queue_limit = queue_limit
        self._lanes = Lanes(url, options=PLANNED_ANEW, number=CONNECTIONS, timeout=timeout)
        self._waiting: dict[Listing, asyncio.Task[PageNow]] = {}
        self._under_way: dict[Listing, asyncio.Task[PageNow]] = {}

    async def page(self, listing: Listing) -> PageNow:
        """Raises a 422 problem for a cursor that is of no such list, Unavailable and Overloaded."""
        run = self._waiting.get(listing)
        if run is None:
            if len(self._waiting) >= self._queue_limit:
                raise Overloaded(f"{len(self._waiting)} lists are waiting already")
            run = asyncio.create_task(self._run(listing, question_of(listing), self._under_way.get(listing)))
            self._waiting[listing] = run
        # one caller who goes away leaves it to the others
        return await asyncio.shield(run)

    async def close(self) -> None:
        if runs := {*self._waiting.values(), *self._under_way.values()}:
            await asyncio.wait(runs)
        await self._lanes.close()

    async def _run(self, listing: Listing, question: Question, before: "asyncio.Task[PageNow] | None") -> PageNow:
        run = self._waiting[listing]
        try:
            if before is not None:
                await asyncio.wait({before}, timeout=self._timeout)
            lane = await self._lanes.take()
        finally:
            del self._waiting[listing]
        self._under_way[listing] = run
        try:
            return page_now(listing, await lane.use(lambda connection: _answer(connection, question)))
        finally:
            self._lanes.put_back(lane)
            if self._under_way[listing] is run:
                del self._under_way[listing]


async def _answer(connection: Connection, question: Question) -> Row:
    async def asked(sql: bytes) -> Row:
        cursor = await connection.execute(sql, question.values, prepare=True)
        [row] = await cursor.fetchall()
        return row

    if question.by_parts is not None and not (await asked(COMMON.encode()))["common"]:
        return await asked(question.by_parts)
    if question.look is not None and (answer := await asked(question.look))["more"]:
        return answer
    return await asked(question.sql)
