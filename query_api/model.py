from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from events.wire import value_to_wire
from runtime.batching import Batcher
from runtime.database import Row, Session

BY_ID = """
SELECT id, version, email, display_name, status, roles, attributes, created_at, updated_at, password_changed_at,
    deleted_at, position
FROM read_model.users WHERE id = ANY(%s::uuid[])
"""
RECORD = (
    "id",
    "version",
    "email",
    "display_name",
    "status",
    "roles",
    "attributes",
    "created_at",
    "updated_at",
    "password_changed_at",
)


def record_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of UserRecord from a row of the read model."""
    return {name: value_to_wire(row[name]) for name in RECORD}


class Model:
    """Reads users by id; reads that wait at the same moment become one query."""

    def __init__(self, session: Session, *, timeout: float, queue_limit: int) -> None:
        self._session = session
        self._reads: Batcher[UUID, Row | None] = Batcher(
            self._read, limit=256, queue_limit=queue_limit, timeout=timeout
        )

    async def user(self, user_id: UUID) -> Row | None:
        """The user's row, deleted ones included. Raises Unavailable and Overloaded."""
        return await self._reads.submit(user_id)

    async def close(self) -> None:
        await self._reads.close()

    async def _read(self, ids: Sequence[UUID]) -> list[Row | Exception | None]:
        found = {row["id"]: row for row in await self._session.fetch(BY_ID, (list(set(ids)),))}
        return [found.get(user_id) for user_id in ids]
