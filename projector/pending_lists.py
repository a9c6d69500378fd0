"""The pending lists of the read model's GIN indexes, merged beside the batches that fill them.

PostgreSQL collects what is new for such an index, and merges it when there are 4 MB of it (its documentation, "GIN
Fast Update Technique"). Left to itself, whoever adds the last of them does that: a batch into a table of a million
users then takes half a second longer. And a search reads the whole list, whatever it looks for.
"""

import asyncio
from typing import Final

import psycopg

from runtime.database import Session
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.logs import logger
from runtime.pacing import wait_at_most

# rows that are merged together: more of them cost less each, and searches more; these fill no list of 4 MB
ENOUGH: Final = 5000
# seconds after which fewer are, too
EVERY: Final = 5.0
# rows that may wait before whoever adds more has to
MOST: Final = 25_000
# seconds that they wait
PATIENCE: Final = 5.0

MERGE: Final = """
SELECT gin_clean_pending_list(i.indexrelid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid IN ('read_model.users'::regclass, 'read_model.users_names'::regclass) AND a.amname = 'gin'
    AND i.indisvalid
"""

log = logger(__name__)


class PendingLists:
    """Merges them on a connection of its own, whose role owns the table. Runs until cancelled."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # rows that were written, and may not be merged yet
        self.unmerged = 0
        self._enough = asyncio.Event()
        self._merged = asyncio.Event()

    async def added(self, rows: int) -> None:
        """Tell of rows that were written; waits a while when too many are not merged yet."""
        self.unmerged += rows
        if self.unmerged >= ENOUGH:
            self._enough.set()
        if self.unmerged >= MOST:
            self._merged.clear()
            await wait_at_most(self._merged, PATIENCE)

    async def run(self) -> None:
        while True:
            await wait_at_most(self._enough, EVERY)
            self._enough.clear()
            if self.unmerged:
                await self._merge(self.unmerged)

    async def _merge(self, rows: int) -> None:
        try:
            await self._session.fetch(MERGE)
        except (Unavailable, OutcomeUnknown, psycopg.Error) as error:
            # nothing depends on it: PostgreSQL does it when the list is long, or a rebuild has just replaced the table
            log.warning("pending lists not merged", reason=f"{type(error).__name__}: {error}")
        self.unmerged -= rows
        self._merged.set()
