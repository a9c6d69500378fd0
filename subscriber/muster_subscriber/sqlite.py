"""A table of the users in SQLite, each change applied once: an example, and enough for small tools."""

import json
import sqlite3
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from muster_subscriber.bookmarks import Bookmark, Moved
from muster_subscriber.contract import Change, Poison

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS users (
    id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    email TEXT,
    record TEXT,
    applied INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS bookmarks (
    partition INTEGER PRIMARY KEY,
    bookmark TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS put_aside (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    reason TEXT NOT NULL,
    value BLOB
) STRICT;
"""
# of a deleted user the version stays, so that nobody brings them back
APPLY: Final = """
INSERT INTO users (id, version, deleted, email, record, applied) VALUES (:id, :version, :deleted, :email, :record, 1)
ON CONFLICT (id) DO UPDATE SET version = excluded.version, deleted = excluded.deleted, email = excluded.email,
    record = excluded.record, applied = applied + 1
"""


class SqliteUsers:
    """`users` has the newest record of everybody as JSON, and how many changes made it; None of who is deleted."""

    def __init__(self, path: Path | str) -> None:
        # transactions begin where this says so
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.executescript(SCHEMA)

    def close(self) -> None:
        self.connection.close()

    async def bookmarks(self) -> Mapping[int, str]:
        return dict(self.connection.execute("SELECT partition, bookmark FROM bookmarks"))

    async def held(self, user_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        ids = json.dumps([str(user_id) for user_id in user_ids])
        rows = self.connection.execute(
            "SELECT id, version FROM users WHERE id IN (SELECT value FROM json_each(?))", [ids]
        )
        return {UUID(user_id): version for user_id, version in rows}

    async def living(self) -> AsyncIterator[UUID]:
        for (user_id,) in self.connection.execute("SELECT id FROM users WHERE NOT deleted").fetchall():
            yield UUID(user_id)

    async def keep(self, bookmark: Bookmark) -> None:
        with self.transaction():
            self.save(bookmark)

    def apply(self, changes: Sequence[Change], bookmark: Bookmark, poison: Sequence[Poison] = ()) -> None:
        """All of it, or nothing; raises Moved."""
        with self.transaction():
            for change in changes:
                self.connection.execute(APPLY, _row(change))
            for one in poison:
                self.connection.execute(
                    "INSERT INTO put_aside VALUES (?, ?, ?, ?, ?)",
                    [one.topic, one.partition, one.offset, one.reason, one.value],
                )
            self.save(bookmark)

    def save(self, bookmark: Bookmark) -> None:
        """Within a transaction; raises Moved."""
        stored = self.connection.execute(
            "SELECT bookmark FROM bookmarks WHERE partition = ?", [bookmark.partition]
        ).fetchone()
        if (stored[0] if stored else None) != bookmark.before:
            raise Moved(f"partition {bookmark.partition}")
        self.connection.execute(
            "INSERT INTO bookmarks VALUES (?, ?) ON CONFLICT DO UPDATE SET bookmark = excluded.bookmark",
            [bookmark.partition, bookmark.after],
        )

    @contextmanager
    def transaction(self) -> Generator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")


def _row(change: Change) -> dict[str, Any]:
    record = None if change.removes or change.user is None else change.user
    return {
        "id": str(change.user_id),
        "version": change.version,
        "deleted": int(change.removes),
        "email": None if record is None else record.email,
        "record": None if record is None else json.dumps(asdict(record), default=str),
    }
