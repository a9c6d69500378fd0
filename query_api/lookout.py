from collections.abc import Sequence
from uuid import UUID

import psycopg

from query_api.standing import Glance, Standing, read_glance, read_standing
from runtime.batching import Batcher
from runtime.database import Session
from runtime.failures import Unavailable

MANY = 100_000


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

    async def glance(self) -> Glance:
        return await self._glances.submit(None)

    async def look(self) -> Standing:
        return await self._looks.submit(None)

    async def writer(self, position: int) -> UUID | None:
        """Whose event is at this position of the log."""
        rows = await self._looking.fetch("SELECT user_id FROM log.events WHERE position = %s", (position,))
        return rows[0]["user_id"] if rows else None

    async def close(self) -> None:
        await self._glances.close()
        await self._looks.close()

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
