"""Parked users tried again: their events are read from the log, in order, from where they were held back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson

from events.keyring import Keyring
from events.operations import record
from events.reader import records_of
from projector.parking import Park, park_logged, park_row
from projector.rows import NoRow, Row, row_of_logged
from projector.sifting import sift
from runtime.database import Connection
from runtime.failpoints import failpoint

PAGE: Final = 500

# the partition's row first: the projector that has it stands still meanwhile
LOCK_PARTITION: Final = "SELECT 1 FROM read_model.progress WHERE partition = %s FOR UPDATE"
LOCK_PARKED: Final = "SELECT * FROM read_model.parked WHERE id = %s FOR UPDATE"
HELD: Final = "SELECT version FROM read_model.users WHERE id = %s"
RELEASE: Final = "DELETE FROM read_model.parked WHERE id = %s"
PARK: Final = "SELECT read_model.park(%s::json, NULL)"
CARRY_OVER: Final = """
UPDATE read_model.parked SET parked_at = %s, tries = %s + 1, tried_at = clock_timestamp()
WHERE user_id = %s AND build IS NULL
"""
DISCARD: Final = """
INSERT INTO log.discarded (position, user_id, version, operator, reason)
SELECT e.position, e.user_id, e.version, %s, %s FROM log.events e WHERE e.user_id = %s AND e.version = %s
ON CONFLICT DO NOTHING
"""
ASK: Final = "UPDATE log.parked SET retry = true WHERE user_id = %s"


class NotParked(Exception):
    """It is not parked any more, or never was."""


class NothingToRetry(Exception):
    """A record of the topic that holds nobody back: there is nothing that could be applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """How far a retry came: the version that the row has now, and what stopped it, if anything did."""

    version: int
    stopper: Park | None


async def retry(connection: Connection, keyring: Keyring, parked: Mapping[str, Any], *, operator: str) -> Retried:
    """Apply what was held back, in one transaction. Raises NotParked, NothingToRetry and WrongKey."""
    async with connection.transaction():
        row = await _locked(connection, parked)
        if row["user_id"] is None:
            raise NothingToRetry
        retried = await _apply(connection, keyring, row)
        outcome = "done" if retried.stopper is None else "refused"
        await record(connection, operator, "parked.retry", _about(row), outcome)
        failpoint("parked.retrying")
    failpoint("parked.retried")
    return retried


async def discard(
    connection: Connection, keyring: Keyring, parked: Mapping[str, Any], *, operator: str, reason: str
) -> Retried | None:
    """Give an event up for good and apply what waits behind it, in one transaction.

    A record of the topic is forgotten, and what the log has in its place is applied; None if it held nobody back.
    Raises NotParked and WrongKey.
    """
    async with connection.transaction():
        row = await _locked(connection, parked)
        await record(connection, operator, "parked.discard", _about(row, reason=reason), "done")
        if row["user_id"] is None:
            await connection.execute(RELEASE, (row["id"],))
            return None
        if row["source"] == "log":
            await connection.execute(DISCARD, (operator, reason, row["user_id"], row["version"]))
        retried = await _apply(connection, keyring, row)
        failpoint("parked.discarding")
    failpoint("parked.discarded")
    return retried


async def ask_relay(
    connection: Connection, parked: Mapping[str, Any], *, operator: str, discard: str | None = None
) -> None:
    """Have the relay that leads publish what it has parked of a user; `discard`: why the first of it is given up."""
    async with connection.transaction():
        if discard is not None:
            await connection.execute(DISCARD, (operator, discard, parked["user_id"], parked["version"]))
        cursor = await connection.execute(ASK, (parked["user_id"],))
        if cursor.rowcount == 0:
            raise NotParked
        more = {} if discard is None else {"reason": discard}
        operation = "parked.retry" if discard is None else "parked.discard"
        await record(connection, operator, operation, _about(parked, held_back_from="topics", **more), "began")


async def _locked(connection: Connection, parked: Mapping[str, Any]) -> Mapping[str, Any]:
    await connection.execute(LOCK_PARTITION, (parked["partition"],))
    cursor = await connection.execute(LOCK_PARKED, (parked["id"],))
    row = await cursor.fetchone()
    if row is None:
        raise NotParked
    return row


async def _apply(connection: Connection, keyring: Keyring, parked: Mapping[str, Any]) -> Retried:
    user_id: UUID = parked["user_id"]
    await connection.execute(RELEASE, (parked["id"],))
    stopper = await _carry_on(connection, keyring, user_id, parked["version"], parked["partition"])
    if stopper is not None:
        await connection.execute(PARK, (orjson.dumps([stopper]).decode(),))
        await connection.execute(CARRY_OVER, (parked["parked_at"], parked["tries"], user_id))
    cursor = await connection.execute(HELD, (user_id,))
    row = await cursor.fetchone()
    return Retried(version=row["version"] if row is not None else 0, stopper=stopper)


async def _carry_on(
    connection: Connection, keyring: Keyring, user_id: UUID, version: int, partition: int
) -> Park | None:
    """Put the user's rows from a version on, page by page; gives what stops that."""
    while True:
        page = await records_of(connection, keyring, user_id, from_version=version, limit=PAGE)
        rows: list[Row] = []
        stopper: Park | None = None
        for one in page:
            try:
                rows.append(row_of_logged(one))
            except NoRow as error:
                stopper = park_logged(one, str(error), partition)
                break
        for refused in await sift(connection, rows):
            return park_row(refused.row, refused.reason, partition)
        if stopper is not None or len(page) < PAGE:
            return stopper
        version = page[-1].version + 1


def _about(parked: Mapping[str, Any], **more: str) -> dict[str, str]:
    """Which one it was, for the record of operations."""
    names = ("user_id", "version", "position", "partition", "topic_offset")
    return {name: str(parked[name]) for name in names if parked[name] is not None} | more
