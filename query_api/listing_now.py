"""Pages of users as they are now, from the read model."""

from query_api.listing import Listing
from query_api.pages import PageNow
from query_api.searches import Searches
from query_api.walks import Walks


class Lists:
    """Reads pages: walks, which are short, and searches, which may not be and hold up no walks."""

    def __init__(self, url: str, *, timeout: float, queue_limit: int) -> None:
        self._walks = Walks(url, timeout=timeout, queue_limit=queue_limit)
        self._searches = Searches(url, timeout=timeout, queue_limit=queue_limit)

    async def page(self, listing: Listing) -> PageNow:
        """Raises a 422 problem for a cursor that is of no such list, Unavailable and Overloaded."""
        return await (self._walks if listing.walks else self._searches).page(listing)

    async def close(self) -> None:
        await self._walks.close()
        await self._searches.close()
