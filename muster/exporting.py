"""`muster export`: the log, or a stretch of it, as files that other tools read; streamed, whatever its length."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, LiteralString, Protocol

import orjson
import psycopg
from psycopg import errors
from psycopg.rows import dict_row

from events.histories import entry_of
from events.keyring import Keyring, WrongKey, open_keyring
from events.proofs.leaves import stored_document
from events.reader import CARRIED, COLUMNS, head_position
from events.recording import Position
from events.wire import changes_to_wire, time_to_wire, user_to_wire, value_to_wire
from muster.answers import Answer
from muster.export_tree import HASHES, write_tree
from muster.failures import CannotRun, Refused
from muster.manifest import FORMAT, MANIFEST, digest_of
from muster.moments import position_told
from muster.progress import shown_progress
from muster.recorded import recorded
from runtime.database import Connection, Row
from runtime.settings import Settings

OPERATION: Final = "export"
# events of a file, and of what is held in memory
FILE_EVENTS: Final = 100_000
BATCH: Final = 2_000

EVENTS: Final = f"""
SELECT {COLUMNS}, (SELECT k.kek_id FROM log.user_keys k WHERE k.user_id = e.user_id) AS kek_id, NOT {CARRIED} AS discarded
FROM log.events e WHERE e.position > %s AND e.position <= %s ORDER BY e.position
"""  # noqa: S608, E501 - constants
KEYS: Final = """
SELECT k.user_id, k.wrapped, k.kek_id, k.erased_at FROM log.user_keys k
WHERE EXISTS (SELECT 1 FROM log.events e WHERE e.user_id = k.user_id AND e.position > %s AND e.position <= %s)
ORDER BY k.user_id
"""
ERASURES: Final = """
SELECT x.* FROM log.erasures x
WHERE EXISTS (SELECT 1 FROM log.events e WHERE e.user_id = x.user_id AND e.position > %s AND e.position <= %s)
ORDER BY x.user_id
"""
DISCARDED: Final = """
SELECT position, user_id, version, operator, reason, discarded_at FROM log.discarded
WHERE position > %s AND position <= %s ORDER BY position
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """`since` and `as_of` are positions or moments, both included. `opened`: what is sealed is written in the clear.

    `format` is jsonl or parquet; the latter is always opened.
    """

    folder: Path
    format: str
    since: str | None
    as_of: str | None
    opened: bool


class Sink(Protocol):
    """A file that rows are written to."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None: ...
    def close(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class File:
    """What the manifest says of a file."""

    name: str
    rows: int = 0
    first: int | None = None
    last: int | None = None
    bytes: int = 0
    sha256: str = ""

    def document(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("name", "rows", "first", "last", "bytes", "sha256")}


@dataclass(slots=True, kw_only=True)
class Written:
    files: list[File] = field(default_factory=list[File])
    events: int = 0
    unreadable: int = 0
    first: int | None = None
    last: int | None = None
    # what the manifest says of the log's tree
    tree: Mapping[str, Any] | None = None

    def counts(self) -> dict[str, int | None]:
        return {"events": self.events, "first": self.first, "last": self.last, "unreadable": self.unreadable}


def export_log(settings: Settings, asked: Asked, operator: str) -> Answer:
    """Raises Refused, CannotRun, BadKey and psycopg's errors."""
    try:
        asked.folder.mkdir(parents=True, exist_ok=True)
        if any(asked.folder.iterdir()):
            raise Refused(f"{asked.folder} is not empty: an export has a folder of its own", code="folder_not_empty")
        return asyncio.run(_export(settings, asked, operator))
    except OSError as error:
        raise CannotRun(f"{asked.folder}: {error.strerror or error}") from None
    except WrongKey as error:
        raise CannotRun(str(error), code="wrong_key") from None
    except errors.InsufficientPrivilege:
        raise CannotRun("the login of DATABASE_URL may not read the log's keys: give the projector's") from None


async def _export(settings: Settings, asked: Asked, operator: str) -> Answer:
    keyring = open_keyring(settings) if asked.opened else None
    async with await _connected(settings) as connection:
        # everything is read as of one moment, however long that takes
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        head = await head_position(connection)
        first = await position_told(connection, asked.since, "--since", before=True) if asked.since else Position(0)
        last = await position_told(connection, asked.as_of, "--as-of", before=False) if asked.as_of else head
        last = min(last, head)
        parameters = {
            "folder": str(asked.folder),
            "format": asked.format,
            "since": asked.since,
            "as_of": asked.as_of,
            "opened": asked.opened,
        }
        written = Written()
        async with recorded(settings, operator, OPERATION, parameters) as result:
            try:
                with shown_progress("exporting", max(0, last - first)) as advanced:
                    await _write_events(connection, keyring, asked, written, (first, last), advanced)
                if keyring is None:
                    await _write_rest(connection, asked.folder, written, (first, last))
                _write_manifest(asked, written)
            finally:
                result.update(written.counts())
    told = {**result, "files": len(written.files), "manifest": str(asked.folder / MANIFEST)}
    return Answer(result=told, words=[", ".join(f"{name}: {value}" for name, value in told.items())])


async def _connected(settings: Settings) -> Connection:
    return await psycopg.AsyncConnection[Row].connect(
        settings.database_url.get_secret_value(),
        autocommit=True,
        row_factory=dict_row,
        application_name="muster export",
    )


async def _write_events(
    connection: Connection,
    keyring: Keyring | None,
    asked: Asked,
    written: Written,
    stretch: tuple[Position, Position],
    advanced: Callable[[int], None],
) -> None:
    sink: Sink | None = None
    file = File(name="")
    async for rows in _batches(connection, EVENTS, stretch):
        if sink is None:
            file = File(name=f"events-{len(written.files) + 1:05}.{asked.format}", first=rows[0]["position"])
            written.files.append(file)
            sink = _sink(asked.folder / file.name, asked)
        if keyring is None:
            sink.write([stored_document(row) for row in rows])
        else:
            found = [_opened(row, keyring) for row in rows]
            written.unreadable += sum(row["unreadable"] is not None for row in found)
            sink.write(found)
        file.rows += len(rows)
        file.last = rows[-1]["position"]
        written.events += len(rows)
        written.first = rows[0]["position"] if written.first is None else written.first
        written.last = rows[-1]["position"]
        advanced(written.events)
        if file.rows >= FILE_EVENTS:
            sink.close()
            sink = None
    if sink is not None:
        sink.close()


async def _write_rest(
    connection: Connection, folder: Path, written: Written, stretch: tuple[Position, Position]
) -> None:
    """What a log needs beside its events to be whole again, and what proves that it is the one that was signed."""
    parts: tuple[tuple[str, LiteralString, Callable[[Row], dict[str, Any]]], ...] = (
        ("keys", KEYS, _key),
        ("discarded", DISCARDED, _discarded),
        ("erasures", ERASURES, _erasure),
    )
    if written.first is not None and written.last is not None:
        found = await write_tree(connection, folder, written.first, written.last)
        if found is not None:
            written.tree, hashes = found
            written.files.append(File(name=HASHES, rows=hashes, first=written.first))
    for name, query, document in parts:
        file = File(name=f"{name}.jsonl")
        written.files.append(file)
        sink = JsonLines(folder / file.name)
        async for rows in _batches(connection, query, stretch):
            sink.write([document(row) for row in rows])
            file.rows += len(rows)
        sink.close()


async def _batches(
    connection: Connection,
    query: LiteralString,
    stretch: tuple[Position, Position],
) -> AsyncIterator[list[Row]]:
    async with connection.cursor(name="export") as cursor:
        await cursor.execute(query, stretch)
        while rows := await cursor.fetchmany(BATCH):
            yield rows


def _write_manifest(asked: Asked, written: Written) -> None:
    """The last of all files, at once: a folder without one is no export."""
    for file in written.files:
        path = asked.folder / file.name
        file.sha256 = digest_of(path)
        file.bytes = path.stat().st_size
    document = {
        "format": FORMAT,
        "contents": "events" if asked.opened else "log",
        "made_at": time_to_wire(datetime.now(UTC)),
        "since": asked.since,
        "as_of": asked.as_of,
        "events": written.events,
        "first": written.first,
        "last": written.last,
        "unreadable": written.unreadable,
        "tree": written.tree,
        "files": [file.document() for file in written.files],
    }
    made = asked.folder / f".{MANIFEST}"
    made.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    made.replace(asked.folder / MANIFEST)


def _key(row: Row) -> dict[str, Any]:
    return {
        "user_id": str(row["user_id"]),
        "wrapped": None if row["wrapped"] is None else base64.b64encode(row["wrapped"]).decode(),
        "kek_id": row["kek_id"],
        "erased_at": None if row["erased_at"] is None else time_to_wire(row["erased_at"]),
    }


def _discarded(row: Row) -> dict[str, Any]:
    return {**row, "user_id": str(row["user_id"]), "discarded_at": time_to_wire(row["discarded_at"])}


def _erasure(row: Row) -> dict[str, Any]:
    return {name: value_to_wire(value) for name, value in row.items()}


def _opened(row: Row, keyring: Keyring) -> dict[str, Any]:
    """An event in the clear, a column for each part. Raises WrongKey."""
    entry = entry_of(row, keyring)
    actor: Mapping[str, Any] = entry.metadata.get("actor") or {}
    found: dict[str, Any] = {
        "position": entry.position,
        "recorded_at": entry.recorded_at.astimezone(UTC),
        "event_id": str(entry.event_id),
        "type": entry.type_name,
        "user_id": str(entry.user_id),
        "version": entry.version,
        "actor_subject": actor.get("subject"),
        "actor_kind": actor.get("kind"),
        "actor_session": actor.get("session"),
        **{name: entry.metadata.get(name) for name in ("reason", "request_id", "correlation_id", "causation_id")},
        "unreadable": entry.reason,
        "erased": entry.erased,
    }
    user = user_to_wire(entry.recorded.event.user) if entry.recorded is not None else {}
    for name in ("email", "display_name", "status", "roles"):
        found[name] = user.get(name)
    for name in ("created_at", "updated_at", "password_changed_at", "deleted_at"):
        found[name] = datetime.fromisoformat(user[name]) if user.get(name) is not None else None
    found["attributes"] = orjson.dumps(user["attributes"]).decode() if user and not entry.erased else None
    changes = changes_to_wire(entry.recorded.event.changes) if entry.recorded is not None else None
    found["changes"] = None if changes is None else orjson.dumps(changes).decode()
    return found


def _sink(path: Path, asked: Asked) -> Sink:
    if asked.format == "parquet":
        # what it alone needs: it takes a second to load
        from muster.parquet import Parquet  # noqa: PLC0415

        return Parquet(path)
    return JsonLines(path)


class JsonLines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))

    def close(self) -> None:
        self._file.close()
