import asyncio
from typing import LiteralString

import psycopg

from identity.sessions import PURGES
from runtime.database import Session
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.logs import logger

EVERY = 300.0
COMMANDS: LiteralString = """
DELETE FROM log.commands WHERE (caller, key) IN (
    SELECT caller, key FROM log.commands WHERE expires_at < now() ORDER BY expires_at LIMIT 10000
)
"""

log = logger(__name__)


async def purge_expired(session: Session) -> None:
    """Delete what has expired, again and again, until cancelled."""
    while True:
        try:
            for purge in (COMMANDS, *PURGES):
                await session.fetch(purge)
        except (Unavailable, OutcomeUnknown, psycopg.Error) as error:
            log.warning("what has expired was not purged", reason=str(error))
        await asyncio.sleep(EVERY)
