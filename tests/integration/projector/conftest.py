from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest

from events.keyring import open_keyring
from events.partitioning import partition_of
from events.user import UserEvent
from events.wire import user_to_wire
from muster.population import Block, Population
from muster.seeding import seed_log
from projector.findings import Finding
from projector.rows import folded, row_of
from projector.standing import standing
from projector.verifying import ModelCheck, one_moment
from runtime.settings import Settings
from tests.databases import PARTITIONS, MakeSettings

Owner = psycopg.Connection[dict[str, Any]]
USERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """A seeded log with the read model that a projector would have made of it; `events[0]` has position 1."""

    owner: Owner
    settings: Settings
    events: Sequence[UserEvent]

    def of(self, user_id: UUID) -> list[tuple[int, UserEvent]]:
        """A user's events with their positions."""
        return [(place, event) for place, event in enumerate(self.events, 1) if event.user.id == user_id]

    def with_events(self, count: int, *, changed: str | None = None) -> UUID:
        """Some living user with at least so many events, one of which changed a field after the creation."""
        for event in self.events:
            history = [one for _, one in self.of(event.user.id)]
            changes = {name for one in history[1:] for name in one.changes}
            if len(history) >= count and (changed is None or changed in changes) and "deleted_at" not in changes:
                return event.user.id
        raise AssertionError(f"nobody has {count} events")

    def put(self, place: int, event: UserEvent) -> None:
        """Make the row of an event the user's, whatever it is now."""
        self.owner.execute("DELETE FROM read_model.users WHERE id = %s", (event.user.id,))
        rows = [row_of(user_to_wire(event.user), place)]
        self.owner.execute("SELECT read_model.put('read_model.users', %s, NULL)", (orjson.dumps(rows).decode(),))

    def break_seal(self, place: int) -> None:
        self.owner.execute(
            "UPDATE log.events SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1) WHERE position = %s",
            (place,),
        )

    def hold_back(self, user_id: UUID, version: int) -> None:
        self.owner.execute(
            "INSERT INTO read_model.parked (user_id, version, source, partition, reason)"
            " VALUES (%s, %s, 'log', %s, 'a test')",
            (user_id, version, partition_of(user_id, PARTITIONS)),
        )

    def leave_unpublished(self, user_id: UUID, version: int) -> None:
        self.owner.execute(
            "INSERT INTO log.parked (user_id, version, position, event_id, reason)"
            " SELECT user_id, version, position, event_id, 'a test' FROM log.events"
            " WHERE user_id = %s AND version = %s",
            (user_id, version),
        )

    def give_up(self, place: int) -> None:
        self.owner.execute(
            "INSERT INTO log.discarded (position, user_id, version, operator, reason)"
            " SELECT position, user_id, version, 'a test', 'a test' FROM log.events WHERE position = %s",
            (place,),
        )

    async def findings(self) -> list[Finding]:
        found: list[Finding] = []
        async with one_moment(self.settings) as connection:
            stands = await standing(connection, self.settings)
            keyring = open_keyring(self.settings)
            await ModelCheck(connection, keyring, stands, found.append, explain_all=True).run(lambda _: None)
        return found


def project(owner: Owner, make_settings: MakeSettings, users: int) -> Projected:
    seed_log(make_settings("muster_command"), users, seed=1, workers=1)
    population = Population(seed=1, first=1, users=users)
    events = [
        happening.event for number in range(population.blocks) for happening in Block(population, number).happenings()
    ]
    rows = folded(row_of(user_to_wire(event.user), place) for place, event in enumerate(events, 1))
    owner.execute("SELECT read_model.put('read_model.users', %s, NULL)", (orjson.dumps(rows).decode(),))
    owner.execute(
        "INSERT INTO read_model.progress (partition, next_offset, position)"
        " SELECT partition, 0, %s FROM generate_series(0, %s) AS partition",
        (len(events), PARTITIONS - 1),
    )
    return Projected(owner=owner, settings=make_settings("muster_projector"), events=events)


@pytest.fixture
def projected(owner: Owner, make_settings: MakeSettings) -> Projected:
    return project(owner, make_settings, USERS)
