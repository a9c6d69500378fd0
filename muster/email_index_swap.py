"""`muster keys rotate-email-index --finish`: the second column takes the first one's place, in one transaction."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from psycopg import errors

from events import operations
from events.fitting import email_index
from events.keyring import Digester, open_digester
from identity.security_log import record
from muster.answers import Answer
from muster.changing_keys import changing
from muster.email_index import HEAD, OPERATION, counted
from muster.failures import CannotRun, Refused
from runtime.database import Connection
from runtime.failpoints import failpoint
from runtime.settings import Settings

# somebody reads the table for long (a dump): all others are kept waiting for no longer than this at a time
TRIES: Final = 60
PAUSE: Final = 0.5

UNFILLED: Final = (
    "there are claims without the next key: run `muster keys rotate-email-index` first. If it was run, some process"
    " does not know the key yet, and has written since"
)

# the primary key of the table that is to be, made while all goes on; what a killed run left of it goes first
UNPREPARE: Final = "DROP INDEX CONCURRENTLY IF EXISTS log.email_claims_following_pkey"
PREPARE: Final = "CREATE UNIQUE INDEX CONCURRENTLY email_claims_following_pkey ON log.email_claims (email_key_next)"
LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '200ms'"
LOCK: Final = "LOCK TABLE log.email_claims IN ACCESS EXCLUSIVE MODE"
SWAP: Final = (
    "ALTER TABLE log.email_claims DROP COLUMN email_key",
    "DROP INDEX log.email_claims_email_key_next_idx",
    "ALTER TABLE log.email_claims RENAME COLUMN email_key_next TO email_key",
    # refuses a row that lacks the next key
    "ALTER TABLE log.email_claims ADD CONSTRAINT email_claims_pkey PRIMARY KEY USING INDEX email_claims_following_pkey",
    "ALTER TABLE log.email_claims ADD COLUMN email_key_next bytea",
    """
    CREATE UNIQUE INDEX email_claims_email_key_next_idx ON log.email_claims (email_key_next)
    WHERE email_key_next IS NOT NULL
    """,
    "COMMENT ON COLUMN log.email_claims.email_key IS 'HMAC-SHA256 of the canonical e-mail address'",
    """
    COMMENT ON COLUMN log.email_claims.email_key_next
    IS 'the same with the next key, while one takes the other''s place'
    """,
    "UPDATE log.email_index SET key_id = next_key_id, next_key_id = NULL, changed_at = now()",
)


def finish_email_index(settings: Settings, operator: str) -> Answer:
    """Judge by the next key from now on. Raises Refused, CannotRun, BadKey, and psycopg's errors."""
    try:
        return asyncio.run(_finish(settings, open_digester(settings), operator))
    except errors.InsufficientPrivilege:
        raise CannotRun(
            "only the database's owner swaps the columns: give the login that `muster migrate` has"
        ) from None


async def _finish(settings: Settings, digester: Digester, operator: str) -> Answer:
    async with changing(settings) as connection:
        index = await email_index(connection)
        if index["next_key_id"] is None:
            raise Refused("no change is under way: `muster keys rotate-email-index` begins one")
        if index["next_key_id"] not in digester.ids:
            raise CannotRun(
                f"the next key is {index['next_key_id']}, which is not known here: is it to be found at all?"
            )
        counts = await counted(connection)
        if counts["filled"] < counts["claims"]:
            raise Refused(UNFILLED)
        await connection.execute(UNPREPARE)
        await connection.execute(PREPARE)
        failpoint("keys.index_prepared")
        parameters = {"from": index["key_id"], "to": index["next_key_id"], "finish": True}
        for _ in range(TRIES):
            if await _swapped(connection, operator, parameters):
                break
            await asyncio.sleep(PAUSE)
        else:
            raise Refused("somebody reads log.email_claims all the time (a dump?): say it again when they are done")
    record("keys.email_index_rotated", key=index["next_key_id"])
    words = [
        f"e-mail addresses are judged by the key {index['next_key_id']} now: set EMAIL_INDEX_KEY to it everywhere,",
        f"and EMAIL_INDEX_KEYS_KNOWN to {index['key_id']} while what was made with that is to count.",
    ]
    return Answer(result=parameters, words=words)


async def _swapped(connection: Connection, operator: str, parameters: Mapping[str, Any]) -> bool:
    """Whether the table could be had at once; then all is done. Raises Refused when a claim lacks the next key."""
    try:
        async with connection.transaction():
            await connection.execute(LOCK_TIMEOUT)
            await connection.execute(HEAD)
            await connection.execute(LOCK)
            for statement in SWAP:
                await connection.execute(statement)
            await operations.record(connection, operator, OPERATION, parameters, "done")
            failpoint("keys.swapped")
    except errors.LockNotAvailable:
        return False
    except errors.NotNullViolation:
        raise Refused(UNFILLED) from None
    return True
