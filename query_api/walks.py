"""Pages of whole orders, without filters: the index of the order has them side by side."""

from collections.abc import Sequence
from typing import Final

from query_api.lanes import list_session
from query_api.listing import Listing, Question, question_of
from query_api.pages import PageNow, page_now
from runtime.batching import Batcher
from runtime.database import Connection, Row
from runtime.problems import Problem

# The order's own index, whatever the planner believes: a plan that was made while there were few users, or before
# PostgreSQL has analysed them, read and sorted all of them for each page.
BY_ORDER: Final = " ".join(f"-c enable_{way}=off" for way in ("sort", "seqscan", "bitmapscan", "hashjoin", "mergejoin"))
# some milliseconds of PostgreSQL's time
AT_ONCE: Final = 64

Walk = tuple[Listing, Question]


class Walks:
    """Reads pages; those that wait at the same moment are read together, each of them once.

    Those of one order and size share a query: for a page alone, the driver takes longer over a query than over its
    answer. While the one connection reads some, others are answered; with a second the two cores had less of both.
    """

    def __init__(self, url: str, *, timeout: float, queue_limit: int) -> None:
        self._session = list_session(url, options=BY_ORDER, timeout=timeout)
        self._pages: Batcher[Listing, PageNow] = Batcher(
            self._read, limit=AT_ONCE, queue_limit=queue_limit, timeout=timeout
        )

    async def page(self, listing: Listing) -> PageNow:
        """Raises a 422 problem for a cursor that is of no such list, Unavailable and Overloaded."""
        return await self._pages.submit(listing)

    async def close(self) -> None:
        await self._pages.close()
        await self._session.close()

    async def _read(self, listings: Sequence[Listing]) -> list[PageNow | Exception]:
        found: dict[Listing, PageNow | Exception] = {}
        alike: dict[bytes, list[Walk]] = {}
        for listing in set(listings):
            try:
                question = question_of(listing)
            except Problem as problem:
                found[listing] = problem
            else:
                alike.setdefault(question.sql, []).append((listing, question))
        for sql, walks in alike.items():
            try:
                found |= await self._read_alike(sql, walks)
            except Exception as error:  # noqa: BLE001 - whatever failed is told to those who wait for these pages
                found |= {listing: error for listing, _ in walks}
        return [found[listing] for listing in listings]

    async def _read_alike(self, sql: bytes, walks: Sequence[Walk]) -> dict[Listing, PageNow]:
        names = walks[0][1].values
        values = {name: [place for _, question in walks for place in question.values[name]] for name in names}

        async def asked(connection: Connection) -> list[Row]:
            cursor = await connection.execute(sql, values, prepare=True)
            return await cursor.fetchall()

        # the first page of an order is of no place, and has no number
        rows = {row.get("number", 1): row for row in await self._session.use(asked)}
        return {listing: page_now(listing, rows[number]) for number, (listing, _) in enumerate(walks, start=1)}
