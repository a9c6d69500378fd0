from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from muster_subscriber.bookmarks import Bookmark


class Application(Protocol):
    """What a subscription asks of whoever keeps the users. Every answer is of what is committed."""

    async def bookmarks(self) -> Mapping[int, str]:
        """The `after` that is stored of each partition."""
        ...

    async def held(self, user_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        """The versions of those of these users who are known, deleted ones too. Up to some hundred are asked for."""
        ...

    def living(self) -> AsyncIterator[UUID]:
        """Everybody who is held and not deleted. Asked once a partition and bootstrap."""
        ...

    async def keep(self, bookmark: Bookmark) -> None:
        """Store a bookmark, in a transaction of its own: there is nothing else to it. Raises Moved."""
        ...
