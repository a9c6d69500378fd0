from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from events.user import Status, User
from events.wire import user_to_wire

EXAMPLE: Final[dict[str, Any]] = {
    "id": "0192d3c8-5b0e-7c31-9d5e-0a3f6f6f2b11",
    "version": 2,
    "email": "ada@example.com",
    "display_name": "Ada Lovelace",
    "status": "active",
    "roles": ["user"],
    "attributes": {"team": "engines"},
    "created_at": "2026-03-01T09:00:00.000000Z",
    "updated_at": "2026-03-02T10:30:00.000000Z",
    "password_changed_at": None,
}


class UserRecord(BaseModel):
    """A user as both APIs answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: UUID
    version: int = Field(ge=1, description="counts the user's changes; also the ETag")
    email: str
    display_name: str | None
    status: Status
    roles: list[str]
    attributes: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    password_changed_at: datetime | None = Field(description="null: the user has no password")


class ErasedRecord(BaseModel):
    """A former state of a user who was erased since: what was personal is null."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{**EXAMPLE, "email": None, "display_name": None, "attributes": None, "erased": True}]
        }
    )

    id: UUID
    version: int = Field(ge=1)
    email: None
    display_name: None
    status: Status
    roles: list[str]
    attributes: None
    created_at: datetime
    updated_at: datetime
    password_changed_at: datetime | None
    erased: Literal[True]


def record_of(user: User) -> dict[str, Any]:
    """The JSON of UserRecord, or of ErasedRecord, for a user who is not deleted."""
    record = user_to_wire(user)
    del record["deleted_at"]
    return record
