"""Once a second: a projector says how it is, and looks whether it should be further than it is."""

import asyncio
import os
import socket
from dataclasses import asdict
from typing import Final

from projector.model_store import Published
from projector.projector import Projector
from runtime.database import Session
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.logs import logger
from runtime.settings import Settings

EVERY: Final = 1.0

BEAT: Final = """
INSERT INTO read_model.projectors AS p (
    instance, state, problem, partitions, rate, started_at, moved_at, seen_at)
VALUES (%(instance)s, %(state)s, %(problem)s, %(partitions)s, %(rate)s, clock_timestamp(),
    clock_timestamp() - make_interval(secs => %(still)s), clock_timestamp())
ON CONFLICT (instance) DO UPDATE
SET state = excluded.state, problem = excluded.problem, partitions = excluded.partitions, rate = excluded.rate,
    moved_at = excluded.moved_at, seen_at = excluded.seen_at,
    started_at = CASE WHEN %(first)s THEN excluded.started_at ELSE p.started_at END
"""
# one that was killed says no good-bye
FORGET: Final = """
DELETE FROM read_model.projectors WHERE instance = %s OR seen_at < clock_timestamp() - interval '1 hour'
"""
# A partition without traffic has all that was published all the same: noted, so that its next event does not make it
# look as if it lacked everything since its last one. Whoever applies to it now notes more: they are not waited for.
SETTLE: Final = """
UPDATE read_model.progress p SET position = r.position
FROM log.publication r
WHERE p.partition IN (
        SELECT q.partition FROM read_model.progress q WHERE q.partition = ANY(%s) FOR UPDATE SKIP LOCKED)
    AND r.topic = %s AND r.partition = p.partition AND r.epoch = p.epoch
    AND p.next_offset >= r.next_offset AND p.position < r.position
"""
PUBLISHED: Final = "SELECT partition, next_offset, position, epoch FROM log.publication WHERE topic = %s"

log = logger(__name__)


class Pulse:
    """The heartbeat of one projector in read_model.projectors, on a connection of its own. Runs until cancelled."""

    def __init__(self, settings: Settings, session: Session, projector: Projector) -> None:
        self._topic = settings.events_topic
        self._session = session
        self._projector = projector
        # a static member keeps its name; another's is free again once it has ended
        self._instance = settings.projector_instance or f"{socket.gethostname()}-{os.getpid()}"

    async def run(self) -> None:
        first = True
        while True:
            try:
                await self._beat(first=first)
                first = False
            except (Unavailable, OutcomeUnknown) as error:
                # not seen is what it then is to others
                log.warning("no heartbeat", reason=str(error))
            await asyncio.sleep(EVERY)

    async def end(self) -> None:
        """Say good-bye: from now on this projector is not expected any more."""
        try:
            await self._session.fetch(FORGET, (self._instance,), timeout=2)
        except (Unavailable, OutcomeUnknown) as error:
            log.warning("no good-bye", reason=str(error))

    async def _beat(self, *, first: bool) -> None:
        signs = self._projector.signs()
        await self._session.fetch(BEAT, {"instance": self._instance, "first": first, **asdict(signs)})
        await self._session.fetch(SETTLE, (signs.partitions, self._topic))
        rows = await self._session.fetch(PUBLISHED, (self._topic,))
        self._projector.look({row.pop("partition"): Published(**row) for row in rows})
