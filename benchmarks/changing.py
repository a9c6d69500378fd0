"""Changes of users at random, appended through the writer: a workload of updates, unlike a seeded log's creations."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from events.keyring import open_keyring
from events.reader import Loaded, Reader
from events.recording import Actor, Metadata
from events.user import EventId, User, UserId, UserUpdated, changes_between
from events.writer import Append, Appended, Writer
from runtime.database import Session
from runtime.ids import new_id
from runtime.settings import Settings

CALLERS = 500


async def append_changes(settings: Settings, user_ids: Sequence[UserId], *, seed: int) -> int:
    """One change of each of these users; those who are deleted have none. Answers how many that were."""
    session = Session(settings.database_url.get_secret_value(), application="benchmark writer", timeout=60)
    loading = Session(settings.database_url.get_secret_value(), application="benchmark reader", timeout=60)
    keyring = open_keyring(settings)
    writer = Writer(session, keyring, timeout=60, queue_limit=CALLERS, idempotency_ttl=86400)
    reader = Reader(loading, keyring, timeout=60, queue_limit=CALLERS)
    metadata = Metadata(
        actor=Actor(subject="benchmark", kind="service"),
        request_id=str(new_id()),
        correlation_id=str(new_id()),
        causation_id=str(new_id()),
    )
    left = list(user_ids)
    chance = random.Random(seed)
    appended = 0

    async def change() -> None:
        nonlocal appended
        while left:
            loaded = await reader.load(left.pop())
            if loaded is None or loaded.user.deleted_at is not None:
                continue
            verdict = await writer.append(_change(loaded, chance, metadata))
            assert isinstance(verdict, Appended), verdict
            appended += 1

    await asyncio.gather(*(change() for _ in range(CALLERS)))
    await writer.close()
    await reader.close()
    await session.close()
    await loading.close()
    return appended


def _change(loaded: Loaded, chance: random.Random, metadata: Metadata) -> Append:
    before = loaded.user
    after = replace(_changed(before, chance), version=before.version + 1, updated_at=datetime.now(UTC))
    event = UserUpdated(id=EventId(new_id()), user=after, changes=changes_between(before, after))
    return Append(user_id=before.id, expected=before.version, event=event, metadata=metadata, wrapped=loaded.wrapped)


def _changed(user: User, chance: random.Random) -> User:
    """As in muster.population, attributes more often than names."""
    if chance.random() < 0.7:
        return replace(user, attributes={**user.attributes, "floor": chance.randrange(1_000_000)})
    return replace(user, display_name=f"Name {chance.randrange(1_000_000_000):09d}")
