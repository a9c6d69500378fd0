"""A population straight into the log, as the command API would have written it, some thousand events a transaction."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import psycopg

from events.keyring import open_digester
from events.wire import time_to_wire
from muster.failures import Refused
from muster.population import Population
from muster.sealed_blocks import Sealed, sealed_blocks
from runtime.settings import Settings

# how long an append would have taken
APPENDED_AFTER: Final = timedelta(milliseconds=2)

HEAD: Final = "SELECT position, recorded_at FROM log.head FOR UPDATE"
ADVANCE: Final = "UPDATE log.head SET position = %s, recorded_at = %s"
COPY_EVENTS: Final = """
COPY log.events (position, recorded_at, user_id, version, type, schema, event_id, data, sealed, metadata) FROM STDIN
"""
COPY_KEYS: Final = "COPY log.user_keys (user_id, wrapped, kek_id) FROM STDIN"
INDEXED: Final = "UPDATE log.email_index SET key_id = %s WHERE key_id IS NULL"
INDEX: Final = "SELECT key_id, next_key_id FROM log.email_index"
COPY_CLAIMS: Final = "COPY log.email_claims (email_key, user_id) FROM STDIN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeded:
    """The positions that a population's events have, from `first` to `last` if nobody else wrote meanwhile."""

    population: Population
    first: int
    last: int


def seed_log(
    settings: Settings, users: int, *, seed: int, workers: int, advanced: Callable[[int], None] = lambda _: None
) -> Seeded:
    """Append `users` users and half as many further events; `advanced` is told how many events there are so far.

    Whatever ends it leaves whole transactions only. Raises BadKey, BrokenProcessPool and psycopg's errors: a
    UniqueViolation when one of these users is there already. Raises Refused while the e-mail index is, or is to be,
    made with another key than the current one.
    """
    key_id = open_digester(settings).id
    with psycopg.connect(settings.database_url.get_secret_value(), application_name="muster seed") as connection:
        with connection.transaction():
            ((before,),) = connection.execute("SELECT position FROM log.head").fetchall()
        population = Population(seed=seed, first=before + 1, users=users)
        done = last = 0
        with sealed_blocks(settings, population, workers) as blocks:
            for block in blocks:
                with connection.transaction():
                    last = _append(connection, block, key_id)
                done += len(block.events)
                advanced(done)
    return Seeded(population=population, first=before + 1, last=last)


def _append(connection: psycopg.Connection, block: Sealed, key_id: str) -> int:
    # as log.append: the lock before a number is taken, held until all has committed
    with connection.cursor() as cursor:
        ((position, recorded_at),) = cursor.execute(HEAD).fetchall()
        cursor.execute(INDEXED, (key_id,))
        if cursor.execute(INDEX).fetchall() != [(key_id, None)]:
            raise Refused(
                "the e-mail index changes its key, or has another one: finish `muster keys rotate-email-index`"
            )
        with cursor.copy(COPY_EVENTS) as copy:
            for at, line in block.events:
                position += 1
                recorded_at = max(recorded_at, at + APPENDED_AFTER)
                copy.write(f"{position}\t{time_to_wire(recorded_at)}\t".encode() + line)
        with cursor.copy(COPY_KEYS) as copy:
            copy.write(block.keys)
        with cursor.copy(COPY_CLAIMS) as copy:
            copy.write(block.claims)
        cursor.execute(ADVANCE, (position, recorded_at))
    return position
