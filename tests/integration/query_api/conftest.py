from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from events.user import User, UserId
from tests.people import ADA, NOON

MakeUser = Callable[..., User]


@pytest.fixture
def make_user() -> MakeUser:
    """Users numbered 1, 2, ...: ids and times rise with the number, unless said otherwise."""

    def make(number: int, **fields: object) -> User:
        values: dict[str, Any] = {
            "id": UserId(UUID(int=number)),
            "version": 1,
            "email": f"user{number:03}@example.com",
            "display_name": f"User {number}",
            "status": ADA.status,
            "roles": ("user",),
            "attributes": {},
            "created_at": NOON + timedelta(seconds=number),
            "updated_at": NOON + timedelta(seconds=number),
            "password_changed_at": None,
            "deleted_at": None,
        }
        return User(**cast("Any", values | fields))

    return make
