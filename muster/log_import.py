"""`muster import-log`: an empty database gets the log of an export, position by position."""

import asyncio
import base64
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, LiteralString

import orjson
import psycopg
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from events import operations
from events.email import canonical_email
from events.keyring import Digester, Keyring, WrongKey, open_digester, open_keyring
from events.reader import COLUMNS
from events.recording import event_of
from events.sealing import BrokenSeal
from muster.answers import Answer
from muster.failures import CannotRun, Refused
from muster.manifest import NoExport, is_as_told, manifest_of
from muster.progress import shown_progress
from runtime.database import Connection, Row
from runtime.settings import Settings

OPERATION: Final = "import-log"
BATCH: Final = 2_000

COPY_EVENTS: Final = """
COPY log.events (position, recorded_at, user_id, version, type, schema, event_id, data, sealed, metadata) FROM STDIN
"""
COPY_KEYS: Final = "COPY log.user_keys (user_id, wrapped, kek_id, erased_at) FROM STDIN"
COPY_DISCARDED: Final = """
COPY log.discarded (position, user_id, version, operator, reason, discarded_at) FROM STDIN
"""
COPY_ERASURES: Final = """
COPY log.erasures (
    user_id, requested_at, metadata, position, deleted_at, erased_at, removed, buried_at, completed_at
) FROM STDIN
"""
COPY_CLAIMS: Final = "COPY log.email_claims (email_key, user_id) FROM STDIN"
HEAD: Final = "SELECT position FROM log.head FOR UPDATE"
# the claims are made here, with a key that the log may have had or not
INDEXED: Final = "UPDATE log.email_index SET key_id = %s, next_key_id = NULL"
ADVANCE: Final = "UPDATE log.head SET position = %s, recorded_at = %s"
NEWEST: Final = f"""
SELECT {COLUMNS} FROM log.user_keys u CROSS JOIN LATERAL (
    SELECT * FROM log.events l WHERE l.user_id = u.user_id ORDER BY l.version DESC LIMIT 1
) e
WHERE u.erased_at IS NULL AND e.type <> 'UserDeleted'
"""  # noqa: S608 - constants


def import_log(settings: Settings, folder: Path, operator: str) -> Answer:
    """All of it, or nothing. Raises Refused, CannotRun, BadKey and psycopg's errors."""
    keyring, digester = open_keyring(settings), open_digester(settings)
    manifest = _manifest(folder)
    try:
        return asyncio.run(_import(settings, folder, manifest, keyring, digester, operator))
    except WrongKey as error:
        raise CannotRun(str(error), code="wrong_key") from None
    except errors.InsufficientPrivilege:
        raise CannotRun("only the database's owner restores a log: give the login that `muster migrate` has") from None
    except (errors.IntegrityError, errors.DataError) as error:
        raise Refused(f"the export does not fit: {error.diag.message_primary}", code="bad_export") from None


def _manifest(folder: Path) -> dict[str, Any]:
    """Raises Refused for what is no whole export of a whole log, and CannotRun."""
    try:
        manifest = manifest_of(folder)
    except NoExport as error:
        raise Refused(str(error), code="bad_export") from None
    if manifest["events"] and (manifest["first"] != 1 or manifest["last"] != manifest["events"]):
        raise Refused(
            f"it begins at position {manifest['first']}: only an export from position 1 on becomes a log",
            code="bad_export",
        )
    for file in manifest["files"]:
        try:
            as_told = is_as_told(folder, file)
        except OSError as error:
            raise Refused(f"{folder / file['name']}: {error.strerror}", code="bad_export") from None
        if not as_told:
            raise Refused(
                f"{folder / file['name']} is not what the manifest says: it was altered or cut short", code="bad_export"
            )
    return manifest


async def _import(
    settings: Settings, folder: Path, manifest: dict[str, Any], keyring: Keyring, digester: Digester, operator: str
) -> Answer:
    connection = await psycopg.AsyncConnection[Row].connect(
        settings.database_url.get_secret_value(),
        autocommit=True,
        row_factory=dict_row,
        application_name="muster import-log",
    )
    set_json_loads(orjson.loads, connection)
    async with connection, connection.transaction():
        head = await (await connection.execute(HEAD)).fetchone()
        if head is None or head["position"]:
            raise Refused("the database has a log already: only an empty one takes another", code="log_not_empty")
        await _copy(connection, COPY_KEYS, _lines(folder, manifest, "keys"), _key)
        await _copy(connection, COPY_DISCARDED, _lines(folder, manifest, "discarded"), _discarded)
        await _copy(connection, COPY_ERASURES, _lines(folder, manifest, "erasures"), _erasure)
        last: dict[str, Any] = {}

        def event(row: dict[str, Any]) -> Sequence[Any]:
            nonlocal last
            if row["position"] != last.get("position", 0) + 1:
                raise Refused(f"position {row['position']} comes after {last.get('position', 0)}", code="bad_export")
            last = row
            advanced(row["position"])
            return _event(row)

        with shown_progress("importing", manifest["events"]) as advanced:
            await _copy(connection, COPY_EVENTS, _lines(folder, manifest, "events"), event)
        if last.get("position", 0) != manifest["events"]:
            raise Refused(
                f"there are {last.get('position', 0)} events, the manifest says {manifest['events']}", code="bad_export"
            )
        if last:
            await connection.execute(ADVANCE, (last["position"], last["recorded_at"]))
        claims = await _claim(connection, keyring, digester)
        await connection.execute(INDEXED, (digester.id,))
        parameters = {"folder": str(folder), "events": manifest["events"]}
        await operations.record(connection, operator, OPERATION, parameters, "done")
    return Answer(
        result={"events": manifest["events"], "claims": claims},
        words=[f"{manifest['events']:,} events. Next: `muster rebuild users`, then `muster verify model --no-topics`"],
    )


def _lines(folder: Path, manifest: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    for file in manifest["files"]:
        if file["name"].startswith(kind):
            with (folder / file["name"]).open("rb") as opened:
                for line in opened:
                    yield orjson.loads(line)


async def _copy(
    connection: Connection,
    query: LiteralString,
    rows: Iterator[dict[str, Any]],
    columns: Callable[[dict[str, Any]], Sequence[Any]],
) -> None:
    async with connection.cursor() as cursor, cursor.copy(query) as copy:
        for row in rows:
            await copy.write_row(columns(row))


def _event(row: dict[str, Any]) -> Sequence[Any]:
    return (
        row["position"],
        row["recorded_at"],
        row["user_id"],
        row["version"],
        row["type"],
        row["schema"],
        row["event_id"],
        orjson.dumps(row["data"]).decode(),
        base64.b64decode(row["sealed"]),
        orjson.dumps(row["metadata"]).decode(),
    )


def _key(row: dict[str, Any]) -> Sequence[Any]:
    wrapped = None if row["wrapped"] is None else base64.b64decode(row["wrapped"])
    return row["user_id"], wrapped, row["kek_id"], row["erased_at"]


def _discarded(row: dict[str, Any]) -> Sequence[Any]:
    return tuple(row[name] for name in ("position", "user_id", "version", "operator", "reason", "discarded_at"))


def _erasure(row: dict[str, Any]) -> Sequence[Any]:
    documents = {
        name: None if row[name] is None else orjson.dumps(row[name]).decode() for name in ("metadata", "removed")
    }
    return (
        row["user_id"],
        row["requested_at"],
        documents["metadata"],
        row["position"],
        row["deleted_at"],
        row["erased_at"],
        documents["removed"],
        row["buried_at"],
        row["completed_at"],
    )


async def _claim(connection: Connection, keyring: Keyring, digester: Digester) -> int:
    """Take the e-mail addresses of all who live: an export has none of them."""
    claims = 0
    async with connection.cursor(name="newest") as newest:
        await newest.execute(NEWEST)
        while rows := await newest.fetchmany(BATCH):
            found: list[tuple[bytes, str]] = []
            for row in rows:
                try:
                    user = event_of(row, keyring).event.user
                except BrokenSeal:
                    # nobody can say whose address it is; `muster verify` tells of the event
                    continue
                found.append((digester.email_key(canonical_email(user.email)), str(user.id)))
            async with connection.cursor() as cursor, cursor.copy(COPY_CLAIMS) as copy:
                for claim in found:
                    await copy.write_row(claim)
            claims += len(found)
    return claims
