"""The live read model compared with the log, both as they are at one moment, user by user."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, LiteralString, TypeVar

import orjson
import psycopg
from psycopg import IsolationLevel
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from events.histories import Entry, KeyRange, entries_in, entry_after, key_ranges, last_to_change
from events.keyring import Keyring
from projector.findings import Finding
from projector.held_rows import rows_in
from projector.judging import MODEL, ORDERED, History
from projector.standing import Standing
from runtime.database import Connection, Row
from runtime.settings import Settings

T = TypeVar("T")

RANGE: Final = 2000
SESSION: Final[tuple[LiteralString, ...]] = (
    "SET jit = off",
    "SET idle_in_transaction_session_timeout = 0",
    "SET statement_timeout = '60s'",
    # as in migrations/sql/project.sql: by index, whatever the planner believes of a table's size
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET enable_bitmapscan = off",
)
# what follows from any event rather than from a change that it names
OF_EVERY_EVENT: Final = frozenset({"id", "version", "position", "updated_at", ORDERED})

Report = Callable[[Finding], None]
Advanced = Callable[[int], None]


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was compared so far."""

    users: int = 0
    events: int = 0
    rows: int = 0


@asynccontextmanager
async def one_moment(settings: Settings) -> AsyncGenerator[Connection]:
    """A connection that sees the database as it is now for as long as it is held, and changes nothing."""
    connection = await psycopg.AsyncConnection[Row].connect(
        settings.database_url.get_secret_value(),
        autocommit=True,
        row_factory=dict_row,
        connect_timeout=5,
        application_name="muster verify",
    )
    async with connection:
        set_json_loads(orjson.loads, connection)
        for setting in SESSION:
            await connection.execute(setting)
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        async with connection.transaction():
            yield connection


class ModelCheck:
    """Compares every row of the live table with the log; memory does not grow with the number of users.

    Each finding is reported as it comes; the first, or with `explain_all` each, with the event that explains it.
    """

    def __init__(
        self, connection: Connection, keyring: Keyring, standing: Standing, report: Report, *, explain_all: bool
    ) -> None:
        self._connection = connection
        self._keyring = keyring
        self._standing = standing
        self._report = report
        self._explain_all = explain_all
        self._explained = False
        self.tally = Tally()

    async def run(self, advanced: Advanced) -> None:
        """`advanced` is told how many users are done. Raises WrongKey and psycopg's errors."""
        async for keys in key_ranges(self._connection, RANGE):
            await self._compare(keys)
            advanced(min(self.tally.users, self._standing.users))

    async def _compare(self, keys: KeyRange) -> None:
        async with (
            entries_in(self._connection, self._keyring, keys) as entries,
            rows_in(self._connection, keys) as rows,
        ):
            entry, held = await _next(entries), await _next(rows)
            while entry is not None or held is not None:
                ids = [] if entry is None else [entry.user_id]
                ids += [] if held is None else [held[0]]
                user_id = min(ids)
                row = held[1] if held is not None and held[0] == user_id else None
                history = History(user_id, self._standing.expectation(user_id), row)
                while entry is not None and entry.user_id == user_id:
                    await self._tell(history.add(entry))
                    self.tally.events += 1
                    entry = await _next(entries)
                await self._tell(history.judge_row())
                self.tally.users += 1
                if row is not None:
                    self.tally.rows += 1
                    held = await _next(rows)

    async def _tell(self, findings: Iterator[Finding]) -> None:
        for finding in findings:
            explain = self._explain_all or not self._explained
            self._explained = True
            self._report(await self._explain(finding) if explain else finding)

    async def _explain(self, finding: Finding) -> Finding:
        """With the event that the row lacks, or that gave the log what the row has not."""
        if finding.place != MODEL or finding.user_id is None or finding.entry is None:
            return finding
        entry: Entry | None = None
        fields = [one.name.replace("email_canonical", "email") for one in finding.deviations]
        if finding.held_version is not None:
            entry = await entry_after(self._connection, self._keyring, finding.user_id, finding.held_version)
        elif fields and not OF_EVERY_EVENT & set(fields):
            entry = await last_to_change(
                self._connection, self._keyring, finding.user_id, finding.entry.version, fields
            )
        return replace(finding, entry=entry or finding.entry)


async def _next(stream: AsyncIterator[T]) -> T | None:
    return await anext(stream, None)
