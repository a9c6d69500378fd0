"""What operators did, for whoever asks later: rows are added and never changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import orjson

from runtime.database import Connection

RECORD: Final = """
INSERT INTO log.operations (operator, operation, parameters, outcome) VALUES (%s, %s, %s, %s) RETURNING id
"""
END: Final = """
INSERT INTO log.operations (operator, operation, parameters, outcome, began)
SELECT operator, operation, %s, %s, id FROM log.operations WHERE id = %s
"""
ABANDON: Final = """
INSERT INTO log.operations (operator, operation, parameters, outcome, began)
SELECT o.operator, o.operation, o.parameters, 'abandoned', o.id FROM log.operations o
WHERE o.operation = %s AND o.outcome = 'began' AND NOT EXISTS (SELECT 1 FROM log.operations e WHERE e.began = o.id)
"""
# One that is one transaction has its outcome at once; another has it in a row of its own, with the result.
LISTED: Final = """
SELECT b.id, b.at, b.operator, b.operation, b.parameters, coalesce(e.outcome, b.outcome) AS outcome,
    e.at AS ended_at, e.parameters AS result
FROM log.operations b
LEFT JOIN LATERAL (SELECT * FROM log.operations o WHERE o.began = b.id ORDER BY o.id LIMIT 1) e ON true
WHERE b.began IS NULL AND (%(operator)s::text IS NULL OR b.operator = %(operator)s)
    AND (%(operation)s::text IS NULL OR b.operation = %(operation)s OR b.operation LIKE %(operation)s || '.%%')
ORDER BY b.id DESC LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What an operator did. `outcome` is began, done, refused, failed or abandoned; `result` what its end told."""

    id: int
    at: datetime
    operator: str
    operation: str
    parameters: Mapping[str, Any]
    outcome: str
    ended_at: datetime | None
    result: Mapping[str, Any] | None


async def listed(
    connection: Connection, *, operator: str | None = None, operation: str | None = None, limit: int
) -> list[Operation]:
    """The newest first. `operation` names one, or a group of them: what is before the dot."""
    cursor = await connection.execute(
        LISTED, {"operator": operator, "operation": operation, "limit": limit}, prepare=False
    )
    return [Operation(**row) for row in await cursor.fetchall()]


async def begin(connection: Connection, operator: str, operation: str, parameters: Mapping[str, Any]) -> int:
    """Record that an operation begins; gives what `end` wants to know."""
    return await record(connection, operator, operation, parameters, "began")


async def record(
    connection: Connection,
    operator: str,
    operation: str,
    parameters: Mapping[str, Any],
    outcome: Literal["began", "done", "refused"],
) -> int:
    """Record an operation that is one transaction, in that transaction; gives the row's number."""
    cursor = await connection.execute(RECORD, (operator, operation, orjson.dumps(parameters).decode(), outcome))
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - of an INSERT of one row
    return row["id"]


async def end(
    connection: Connection, began: int, outcome: Literal["done", "refused", "failed"], result: Mapping[str, Any]
) -> None:
    """Record how the operation that `began` ended."""
    await connection.execute(END, (orjson.dumps(result).decode(), outcome, began))


async def give_up_unfinished(connection: Connection, operation: str) -> None:
    """Record as abandoned those that began and never told of an end, when surely none is under way."""
    await connection.execute(ABANDON, (operation,))
