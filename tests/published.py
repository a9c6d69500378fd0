"""Both topics, written to as the relay does, with the store's own envelopes, and with what a test puts between."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from events.envelope import Envelope, history_envelope, snapshot_envelope
from events.partitioning import partition_of
from events.user import EventId, Status, User, UserCreated, UserDeleted, UserEvent, UserId, UserUpdated, changes_between
from runtime.ids import new_id
from runtime.settings import Settings
from tests.people import NOON, ORIGIN, recorded
from tests.topics import settled


@dataclass(slots=True)
class Published:
    """`users` is the truth; `sent` has each event's envelope for the history topic, in order."""

    settings: Settings
    users: dict[UUID, User] = field(default_factory=dict[UUID, User])
    sent: list[Envelope] = field(default_factory=list[Envelope])
    _position: int = 0
    _producer: Producer = field(init=False)

    def __post_init__(self) -> None:
        servers: dict[str, Any] = {"bootstrap.servers": self.settings.kafka_bootstrap_servers, "log_level": 0}
        # not idempotent: that does not survive topics that are made anew under it
        self._producer = Producer({**servers, "max.in.flight": 1, "linger.ms": 0})
        admin: Any = AdminClient(servers)
        topics = [self.settings.events_topic, self.settings.snapshot_topic]
        settled(admin.create_topics([NewTopic(name, self.settings.topic_partitions, 1) for name in topics]))

    def create(self, count: int = 1) -> list[User]:
        made: list[User] = []
        for _ in range(count):
            at = NOON + timedelta(seconds=self._position)
            user = User(
                id=UserId(new_id()),
                version=1,
                email=f"user{self._position}@example.com",
                display_name=None,
                status=Status.ACTIVE,
                roles=("user",),
                attributes={},
                created_at=at,
                updated_at=at,
                password_changed_at=None,
                deleted_at=None,
            )
            made.append(user)
            self._send(UserCreated(id=EventId(new_id()), user=user, changes=changes_between(None, user)))
        return made

    def change(self, user_id: UUID, **fields: Any) -> None:  # noqa: ANN401 - fields of any type
        before = self.users[user_id]
        after = replace(before, version=before.version + 1, **fields)
        kind = UserDeleted if after.deleted_at is not None else UserUpdated
        self._send(kind(id=EventId(new_id()), user=after, changes=changes_between(before, after)))

    def delete(self, user_id: UUID) -> None:
        self.change(user_id, deleted_at=NOON + timedelta(days=1))

    def repeat(self, envelopes: Iterable[Envelope]) -> None:
        for envelope in envelopes:
            self._put(self.settings.events_topic, envelope)

    def flush(self) -> None:
        assert self._producer.flush(30) == 0

    @property
    def versions(self) -> Mapping[str, tuple[int, bool]]:
        """Of everybody the version, and whether they are deleted."""
        return {str(user.id): (user.version, user.deleted_at is not None) for user in self.users.values()}

    def _send(self, event: UserEvent) -> None:
        self._position += 1
        self.users[event.user.id] = event.user
        found = recorded(event, position=self._position)
        history = history_envelope(found, ORIGIN)
        self.sent.append(history)
        self._put(self.settings.events_topic, history)
        self._put(self.settings.snapshot_topic, snapshot_envelope(found, ORIGIN))

    def _put(self, topic: str, envelope: Envelope) -> None:
        self._producer.produce(
            topic,
            key=envelope.key,
            value=envelope.value,
            headers=list(envelope.headers),
            partition=partition_of(UUID(envelope.key.decode()), self.settings.topic_partitions),
        )
