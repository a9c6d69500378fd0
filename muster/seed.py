"""`muster seed`: many users for trying things out and for measuring."""

import asyncio
import os
import time
from concurrent.futures.process import BrokenProcessPool

from psycopg.errors import UniqueViolation

from events.keyring import open_keyring
from muster.answers import Answer
from muster.failures import CannotRun, Refused
from muster.kek import check_kek
from muster.progress import shown_progress
from muster.seeding import seed_log
from muster.target import on_database
from runtime.settings import Settings


def seed_users(settings: Settings, users: int, *, seed: int, workers: int | None) -> Answer:
    """Append a population. Raises Refused, CannotRun, BadKey and psycopg's errors."""
    if settings.muster_mode == "production":
        raise Refused("the users would be made up: with MUSTER_MODE=production nobody is seeded", code="production")
    keyring = open_keyring(settings)
    asyncio.run(on_database(settings, lambda connection: check_kek(connection, keyring.kek)))
    began = time.monotonic()
    try:
        with shown_progress("seeding", users + users // 2) as advanced:
            seeded = seed_log(settings, users, seed=seed, workers=workers or os.cpu_count() or 1, advanced=advanced)
    except UniqueViolation as error:
        raise Refused(
            f"one of these users is there already ({error.diag.constraint_name}): is another `muster seed` running?"
            " What was committed stays",
            code="users_there",
        ) from None
    except BrokenProcessPool:
        raise CannotRun("a worker was killed: is there memory enough? What was committed stays") from None
    seconds = time.monotonic() - began
    events = seeded.population.events
    pace = f"{seconds:.1f} s: {events / seconds:,.0f} events/s"
    return Answer(
        result={
            "users": users,
            "events": events,
            "first": seeded.first,
            "last": seeded.last,
            "seconds": round(seconds, 2),
            "per_second": round(events / seconds, 1),
        },
        words=[f"{users:,} users, {events:,} events, positions {seeded.first:,} to {seeded.last:,} in {pace}"],
    )
