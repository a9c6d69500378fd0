from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, LiteralString

import orjson

from runtime.batching import Batcher
from runtime.database import Row, Session

# RFC 3339 in UTC with microseconds, as events.wire.time_to_wire has it
_TIME: Final[LiteralString] = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""
# The JSON of UserRecord, from a row of `read_model.users u`: it goes out as it stands, so nothing in it is made twice.
# NULL for a deleted user, as anything with NULL is; row_to_json takes a third longer.
RECORD: Final[LiteralString] = f"""
'{{"id":"' || u.id
    || '","version":' || u.version
    || ',"email":' || to_json(u.email)
    || ',"display_name":' || coalesce(to_json(u.display_name)::text, 'null')
    || ',"status":' || to_json(u.status)
    || ',"roles":' || to_json(u.roles)
    || ',"attributes":' || u.attributes
    || ',"created_at":"' || to_char(u.created_at AT TIME ZONE 'UTC', {_TIME})
    || '","updated_at":"' || to_char(u.updated_at AT TIME ZONE 'UTC', {_TIME})
    || '","password_changed_at":'
    || coalesce('"' || to_char(u.password_changed_at AT TIME ZONE 'UTC', {_TIME}) || '"', 'null')
    || '}}'"""
# LATERAL: an index look-up each. With ANY, what was planned when there were few users stayed a scan of all of them.
BY_ID: Final[LiteralString] = f"""
SELECT u.id::text AS id, u.version, u.position, u.deleted_at IS NOT NULL AS deleted, {RECORD} AS record
FROM unnest(%s::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (SELECT * FROM read_model.users f WHERE f.id = wanted.id LIMIT 1) u
"""  # noqa: S608 - a constant
# every digit as a zero: as many in a row as the largest integer of 64 bits has are found without an expression
_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_LARGE: Final = b"0" * 20


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


def body_of(text: str) -> bytes:
    """JSON that holds RECORDs, with numbers as they were sent.

    1e300 is three hundred digits in PostgreSQL's jsonb, an integer for a reader who knows large ones.
    """
    body = text.encode()
    return orjson.dumps(orjson.loads(body)) if _LARGE in body.translate(_AS_ZEROS) else body


def _found(row: Row) -> Found:
    deleted: bool = row["deleted"]
    body = b"" if deleted else body_of(row["record"])
    return Found(version=row["version"], position=row["position"], deleted=deleted, body=body)
