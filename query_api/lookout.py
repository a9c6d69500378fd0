import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import psycopg

from query_api.standing import Glance, Standing, read_glance, read_standing
from runtime.batching import Batcher
from runtime.database import Session
from runtime.failures import Unavailable

MANY = 100_000
# between the glances for those who wait
POLL: Final = 0.005


class Lookout:
    """Looks where the read model stands; who asks at the same moment shares one look. Raises Unavailable.

    Glances and long looks have a session each: a long one holds no read up.
    """

    def __init__(self, glances: Session, looks: Session, *, events_topic: str, partitions: int, timeout: float) -> None:
        self._glancing = glances
        self._looking = looks
        self._topic = events_topic
        self._partitions = partitions
        self._glances: Batcher[None, Glance] = Batcher(self._glance, limit=MANY, queue_limit=MANY, timeout=timeout)
        self._looks: Batcher[None, Standing] = Batcher(self._look, limit=MANY, queue_limit=MANY, timeout=timeout)
        # those who wait, for which position, and of which user (of all, if None): one task looks for all of them
        self._waiting: dict[asyncio.Future[Glance | Exception], tuple[int, UUID | None]] = {}
        self._watching: asyncio.Task[None] | None = None
        self._seen: Glance | None = None

    async def glance(self) -> Glance:
        return await self._glances.submit(None)

    async def glance_or_seen(self) -> Glance:
        """As `glance`; while somebody waits, and nobody is held back, what was last seen for them."""
        seen = self._seen
        return await self.glance() if seen is None or seen.held else seen

    async def glance_at(self, position: int, user_id: UUID | None, *, seconds: float) -> Glance:
        """The first glance to come by which the user, or everybody, is at `position`, or somebody is held back.

        After `seconds` without one, the newest.
        """
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = position, user_id
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(seconds):
                found = await waiting
        except TimeoutError:
            return await self.glance()
        finally:
            del self._waiting[waiting]
        if isinstance(found, Exception):
            raise found
        return found

    async def look(self) -> Standing:
        return await self._looks.submit(None)

    async def writer(self, position: int) -> UUID | None:
        """Whose event is at this position of the log."""
        rows = await self._looking.fetch("SELECT user_id FROM log.events WHERE position = %s", (position,))
        return rows[0]["user_id"] if rows else None

    async def close(self) -> None:
        if (watching := self._watching) is not None:
            watching.cancel()
            await asyncio.wait({watching})
        await self._glances.close()
        await self._looks.close()

    async def _watch(self) -> None:
        """Look for all who wait, as long as anybody does."""
        try:
            while self._waiting:
                await asyncio.sleep(POLL)
                found: Glance | Exception
                try:
                    found = self._seen = await self.glance()
                except Exception as error:  # noqa: BLE001 - it is for those who wait, and they raise it
                    found, self._seen = error, None
                for waiting, (position, user_id) in self._waiting.items():
                    if not waiting.done() and _answers(found, position, user_id):
                        waiting.set_result(found)
        finally:
            self._watching = self._seen = None

    async def _glance(self, asked: Sequence[None]) -> list[Glance | Exception]:
        glance = await self._glancing.use(lambda connection: read_glance(connection, self._topic, self._partitions))
        return [glance] * len(asked)

    async def _look(self, asked: Sequence[None]) -> list[Standing | Exception]:
        try:
            standing = await self._looking.use(
                lambda connection: read_standing(connection, self._topic, self._partitions)
            )
        except psycopg.Error as error:
            # not migrated yet, or a role without its rights: what is not known is never called healthy
            raise Unavailable(f"where the projection stands: {error}") from error
        return [standing] * len(asked)


def _answers(found: Glance | Exception, position: int, user_id: UUID | None) -> bool:
    return isinstance(found, Exception) or bool(found.held) or found.reached_for(user_id) >= position
