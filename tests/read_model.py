"""A read model that a test arranges itself, in the state that relay and projectors would leave it in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest

from events.user import User, UserId
from events.wire import user_to_wire
from projector.read_model import REBUILDING
from projector.rows import row_of
from tests.databases import PARTITIONS, MakeSettings
from tests.people import ADA

Owner = psycopg.Connection[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ReadModel:
    owner: Owner
    topic: str

    def hold(self, users: Iterable[User], *, position: int = 7) -> None:
        rows = [row_of(user_to_wire(user), position) for user in users]
        self.owner.execute("SELECT read_model.put('read_model.users', %s, NULL)", (orjson.dumps(rows).decode(),))

    def hold_versions(self, versions: Mapping[str, int]) -> None:
        """The model has these users as they were at these versions, for a test that looks at nothing else."""
        self.hold(replace(ADA, id=UserId(UUID(user)), version=version) for user, version in versions.items())

    def stand(self, partition: int, *, offset: int, position: int, epoch: int = 0, ago: float = 0) -> None:
        """All of this partition before `offset` is applied: the events up to `position`; it moved `ago` seconds ago."""
        self.owner.execute(
            "INSERT INTO read_model.progress (partition, next_offset, position, epoch, moved_at)"
            " VALUES (%s, %s, %s, %s, clock_timestamp() - make_interval(secs => %s)) ON CONFLICT (partition) DO UPDATE"
            " SET next_offset = excluded.next_offset, position = excluded.position, epoch = excluded.epoch,"
            " moved_at = excluded.moved_at",
            (partition, offset, position, epoch, ago),
        )

    def publish(self, partition: int, *, offset: int, position: int, epoch: int = 0, ago: float = 0) -> None:
        """The relay has published every event up to `position` that belongs here, all before `offset`."""
        self.owner.execute(
            "INSERT INTO log.publication (topic, partition, position, next_offset, last_position, epoch, published_at)"
            " VALUES (%(topic)s, %(partition)s, %(position)s, %(offset)s, %(position)s, %(epoch)s,"
            " clock_timestamp() - make_interval(secs => %(ago)s)) ON CONFLICT (topic, partition) DO UPDATE"
            " SET position = excluded.position, next_offset = excluded.next_offset, epoch = excluded.epoch,"
            " published_at = excluded.published_at",
            {
                "topic": self.topic,
                "partition": partition,
                "position": position,
                "offset": offset,
                "epoch": epoch,
                "ago": ago,
            },
        )

    def beat(
        self,
        instance: str = "one",
        *,
        partitions: Iterable[int] = range(PARTITIONS),
        state: str = "live",
        problem: str | None = None,
        rate: float = 0,
        ago: float = 0,
    ) -> None:
        """A projector gave a sign of life `ago` seconds ago; before 0, it goes on doing so for that long."""
        self.owner.execute(
            "INSERT INTO read_model.projectors (instance, state, problem, partitions, rate, started_at, seen_at)"
            " VALUES (%s, %s, %s, %s, %s, now(), clock_timestamp() - make_interval(secs => %s))"
            " ON CONFLICT (instance) DO UPDATE SET state = excluded.state, problem = excluded.problem,"
            " partitions = excluded.partitions, rate = excluded.rate, seen_at = excluded.seen_at",
            (instance, state, problem, list(partitions), rate, ago),
        )

    def die(self, instance: str = "one") -> None:
        """As of a projector that was killed a while ago."""
        self.owner.execute(
            "UPDATE read_model.projectors SET seen_at = clock_timestamp() - interval '42 s' WHERE instance = %s",
            (instance,),
        )

    def park(self, user_id: UUID | str, *, version: int = 1, build: int | None = None) -> None:
        """The projector holds this user back from `version` on, from the live table or from that of a build."""
        self.owner.execute(
            "INSERT INTO read_model.parked (user_id, version, build, source, partition, reason)"
            " VALUES (%s, %s, %s, 'log', 0, 'planted')",
            (user_id, version, build),
        )

    def park_in_relay(self, user_id: UUID | str, *, version: int = 1) -> None:
        """The relay publishes nothing of this user from `version` on."""
        self.owner.execute(
            "INSERT INTO log.parked (user_id, version, position, event_id, reason)"
            " SELECT user_id, version, position, event_id, 'planted' FROM log.events"
            " WHERE user_id = %s AND version = %s",
            (user_id, version),
        )

    def discard(self, position: int) -> None:
        """An operator gave this event up."""
        self.owner.execute(
            "INSERT INTO log.discarded (position, user_id, version, operator, reason)"
            " SELECT position, user_id, version, 'tests', 'planted' FROM log.events WHERE position = %s",
            (position,),
        )

    def build(self, phase: str = "copying", *, running: bool = True) -> int:
        """A rebuild is under way, or was left unfinished; gives its number."""
        if running:
            self.owner.execute("SELECT pg_advisory_lock(%s)", (REBUILDING,))
        row = self.owner.execute(
            "INSERT INTO read_model.builds (state, shape, fingerprint, goal, range_size, phase)"
            " VALUES ('building', 2, 'planted', 0, 1, %s) RETURNING id",
            (phase,),
        ).fetchone()
        assert row is not None
        return int(row["id"])

    def age_log(self, seconds: float) -> None:
        """As if every event had been recorded so long ago."""
        self.owner.execute(
            "UPDATE log.events SET recorded_at = clock_timestamp() - make_interval(secs => %s)", (seconds,)
        )


@pytest.fixture
def model(owner: Owner, make_settings: MakeSettings) -> ReadModel:
    """The model of a projector that runs."""
    model = ReadModel(owner, make_settings("muster_query").events_topic)
    model.beat(ago=-600)
    return model
