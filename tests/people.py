"""Users and events with fixed ids and times, for tests that need no service."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from command_api.decide import ChangeUser, CreateUser, DeleteUser
from events.envelope import Origin
from events.recording import Actor, Metadata, Position, RecordedEvent
from events.user import EventId, Status, User, UserCreated, UserEvent, UserId, changes_between
from events.wire import NAMES

ADA_ID = UserId(UUID("0192d3c8-5b0e-7c31-9d5e-0a3f6f6f2b11"))
NOON = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)

ADA = User(
    id=ADA_ID,
    version=1,
    email="Ada@Example.com",
    display_name="Ada",
    status=Status.ACTIVE,
    roles=("admin", "user"),
    attributes={"team": "engines"},
    created_at=NOON,
    updated_at=NOON,
    password_changed_at=None,
    deleted_at=None,
)
ADA_CREATED = UserCreated(id=EventId(UUID(int=1)), user=ADA, changes=changes_between(None, ADA))

ORIGIN = Origin(source="/muster/users", schemas="https://users.example.com/schemas")
METADATA = Metadata(
    actor=Actor(subject="development", kind="operator"),
    request_id="request-1",
    correlation_id="correlation-1",
    causation_id="causation-1",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)


def event_id(number: int) -> EventId:
    return EventId(UUID(int=number))


def create(**fields: Any) -> CreateUser:  # noqa: ANN401 - fields of any type
    values: dict[str, Any] = {
        "event_id": event_id(1),
        "user_id": ADA_ID,
        "at": NOON,
        "email": ADA.email,
        "display_name": ADA.display_name,
        "status": ADA.status,
        "roles": ADA.roles,
        "attributes": ADA.attributes,
        "with_password": False,
    }
    return CreateUser(**values | fields)


def change(
    patch: dict[str, Any] | None = None,
    /,
    *,
    at: datetime = LATER,
    **new: Any,  # noqa: ANN401 - fields of any type
) -> ChangeUser:
    """Set these fields, and merge `patch` into the attributes."""
    return ChangeUser(event_id=event_id(2), at=at, new=new, attributes_patch=patch, with_password=False, versions=None)


def delete(*, at: datetime = LATER) -> DeleteUser:
    return DeleteUser(event_id=event_id(3), at=at, versions=None)


def recorded(event: UserEvent, *, position: int = 7, metadata: Metadata = METADATA) -> RecordedEvent:
    return RecordedEvent(
        position=Position(position),
        recorded_at=event.user.updated_at + timedelta(milliseconds=3),
        event=event,
        metadata=metadata,
        type_name=NAMES[type(event)],
    )
