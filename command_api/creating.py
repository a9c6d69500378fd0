from datetime import UTC, datetime

from command_api.bodies import CreateUserBody
from command_api.decide import CreateUser
from events.user import EventId, UserId
from runtime.ids import new_id


def creation_of(body: CreateUserBody, user_id: UserId) -> CreateUser:
    """The command that a body asks for, now, whoever sent it."""
    return CreateUser(
        event_id=EventId(new_id()),
        user_id=user_id,
        at=datetime.now(UTC),
        email=body.email,
        display_name=body.display_name,
        status=body.status,
        roles=tuple(body.roles),
        attributes=body.attributes,
        with_password=body.password is not None or body.password_hash is not None,
    )
