from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, LiteralString

import orjson

from runtime.batching import Batcher
from runtime.database import Row, Session

# RFC 3339 in UTC with microseconds, as events.wire.time_to_wire has it
_TIME: Final[LiteralString] = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""
# Columns of `read_model.users u`: a row of them is the JSON of UserRecord as it stands, so nothing in it is made twice.
# What is sorted or compared is named with the u: without it a time is this text.
RECORD: Final[
    LiteralString
] = f"""u.id::text AS id, u.version, u.email, u.display_name, u.status, u.roles, u.attributes,
    to_char(u.created_at AT TIME ZONE 'UTC', {_TIME}) AS created_at,
    to_char(u.updated_at AT TIME ZONE 'UTC', {_TIME}) AS updated_at,
    to_char(u.password_changed_at AT TIME ZONE 'UTC', {_TIME}) AS password_changed_at"""
# LATERAL: an index look-up each. With ANY, what was planned when there were few users stayed a scan of all of them.
BY_ID: Final[LiteralString] = f"""
SELECT {RECORD}, u.position, u.deleted_at IS NOT NULL AS deleted
FROM unnest(%s::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM read_model.users f WHERE f.id = wanted.id LIMIT 1) u
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A user of the read model; `body` is the JSON of UserRecord, which a deleted user has none of."""

    version: int
    position: int
    deleted: bool
    body: bytes


class Model:
    """Reads users by id; reads that wait at the same moment become one query."""

    def __init__(self, session: Session, *, timeout: float, queue_limit: int) -> None:
        self._session = session
        self._reads: Batcher[str, Found | None] = Batcher(
            self._read, limit=256, queue_limit=queue_limit, timeout=timeout
        )

    async def user(self, user_id: str) -> Found | None:
        """The user, deleted ones included; an id is canonical text. Raises Unavailable and Overloaded."""
        return await self._reads.submit(user_id)

    async def close(self) -> None:
        await self._reads.close()

    async def _read(self, ids: Sequence[str]) -> list[Found | Exception | None]:
        # the text of an array, made here: the driver would look at each id for how to write it
        wanted = "{" + ",".join(set(ids)) + "}"
        found = {row["id"]: _found(row) for row in await self._session.fetch(BY_ID, (wanted,))}
        return [found.get(user_id) for user_id in ids]


def _found(row: Row) -> Found:
    position, deleted = row.pop("position"), row.pop("deleted")
    body = b"" if deleted else orjson.dumps(row)
    return Found(version=row["version"], position=position, deleted=deleted, body=body)
