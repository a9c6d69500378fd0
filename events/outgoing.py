"""Events on their way out: rows of the log as records of both topics.

Nearly every row is written in the newest version, opens, and holds what is published letter by letter: such a row
becomes records without an event being made of it and taken apart again. What is not exactly so (an erased user's
event, one of another version, a damaged one) goes the whole way, through events.reader and events.envelope, which
also says what the records of all others are: tests/unit/events/test_outgoing.py holds the two against each other.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any, Final

import orjson

from events.envelope import (
    CONTENT_TYPE,
    DATASCHEMA,
    SNAPSHOT,
    SNAPSHOT_VERSION,
    SPECVERSION,
    Envelope,
    Header,
    Origin,
    history_envelope,
    sequence_bytes,
    snapshot_envelope,
    wire_type,
)
from events.keyring import Keyring, WrongKey
from events.reader import AFTER, Stretch, Unreadable, events_after
from events.recording import TOMBSTONE, Position, RecordedEvent
from events.sealing import BrokenSeal, associated_data, unseal
from events.user import Status, UserDeleted, UserId
from events.versions import newest
from events.wire import PERSONAL, TIMES, TYPES, own_fields, time_to_wire
from runtime.database import Connection, Row

# rows that are made records of without a pause: about two milliseconds
AT_ONCE: Final = 100
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d\.\d{6}Z", re.ASCII)
_STATUSES: Final = frozenset(status.value for status in Status)
# of a record, what is not personal: id, version, status, roles and the times
_OPEN_FIELDS: Final = 4 + len(TIMES)
# of a change: old and new
_CHANGE_FIELDS: Final = 2
# fields whose values are not written just as they are stored
_CHECKED: Final = frozenset({*TIMES, "roles", "status"})
_METADATA: Final = frozenset({"actor", "request_id", "correlation_id", "causation_id", "traceparent", "reason"})
_ACTOR: Final = frozenset({"subject", "kind", "session"})


@dataclass(slots=True, kw_only=True)
class Outgoing:
    """An event as it is published."""

    position: Position
    user_id: UserId
    version: int
    history: Envelope
    snapshot: Envelope

    @classmethod
    def of(cls, recorded: RecordedEvent, origin: Origin) -> "Outgoing":
        return cls(
            position=recorded.position,
            user_id=recorded.user_id,
            version=recorded.version,
            history=history_envelope(recorded, origin),
            snapshot=snapshot_envelope(recorded, origin),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What all events of a type have alike in the newest version."""

    schema: int
    deletes: bool
    typed: Header
    described: Header


class Encoder:
    """Makes records of rows; of those alone that need no event to be made of them."""

    def __init__(self, keyring: Keyring, origin: Origin) -> None:
        self._keyring = keyring
        self.origin = origin
        self._source: Header = ("ce_source", origin.source.encode())
        self._snapshot_schema: Header = (DATASCHEMA, origin.schema(SNAPSHOT, SNAPSHOT_VERSION).encode())
        self._kinds = {
            name: _Kind(
                schema=newest(name),
                deletes=kind is UserDeleted,
                typed=("ce_type", wire_type(name, newest(name)).encode()),
                described=(DATASCHEMA, origin.schema(name, newest(name)).encode()),
            )
            for name, kind in TYPES.items()
            if not own_fields(kind)
        }

    def outgoing(self, row: Row) -> Outgoing | None:
        """None for a row that has to go the whole way."""
        wrapped = row["wrapped"]
        kind = self._kinds.get(row["type"])
        if kind is None or row["schema"] != kind.schema or wrapped is None or wrapped == TOMBSTONE:
            return None
        try:
            return self._outgoing(row, wrapped, kind)
        except (KeyError, TypeError, ValueError, AttributeError, BrokenSeal, WrongKey):
            return None

    def _outgoing(self, row: Row, wrapped: bytes, kind: _Kind) -> Outgoing | None:
        user_id, version, event_id = row["user_id"], row["version"], row["event_id"]
        personal = unseal(
            self._keyring.open(user_id, wrapped),
            row["sealed"],
            associated_data(
                user_id=user_id, version=version, type_name=row["type"], schema=kind.schema, event_id=event_id
            ),
        )
        data, name = row["data"], str(user_id)
        user = _user(data["record"], personal["record"])
        changes = _changes(data["changes"], personal["changes"])
        if user is None or changes is None or user["id"] != name or user["version"] != version or "own" in data:
            return None
        key = name.encode()
        before = [
            CONTENT_TYPE,
            SPECVERSION,
            ("ce_id", str(event_id).encode()),
            kind.typed,
            self._source,
            ("ce_subject", key),
            ("ce_time", time_to_wire(row["recorded_at"]).encode()),
        ]
        after = _traced(row["metadata"], row["position"], version)
        if after is None:
            return None
        record = orjson.dumps(user)
        body = b'{"user":%b}' % record
        return Outgoing(
            position=row["position"],
            user_id=user_id,
            version=version,
            history=Envelope(
                key=key,
                value=b'%b,"changes":%b}' % (body[:-1], orjson.dumps(changes)),
                headers=[*before, kind.described, *after],
            ),
            snapshot=Envelope(
                key=key, value=None if kind.deletes else body, headers=[*before, self._snapshot_schema, *after]
            ),
        )


def _user(record: Mapping[str, Any], personal: Mapping[str, Any]) -> dict[str, Any] | None:
    """As events.wire.user_to_wire; None for what is not stored as it writes it."""
    user = {
        "id": record["id"],
        "version": record["version"],
        "email": personal["email"],
        "display_name": personal["display_name"],
        "status": record["status"],
        "roles": record["roles"],
        "attributes": personal["attributes"],
        "created_at": record["created_at"],
        "updated_at": record["updated_at"],
        "password_changed_at": record["password_changed_at"],
        "deleted_at": record["deleted_at"],
    }
    alike = (
        len(record) == _OPEN_FIELDS
        and len(personal) == len(PERSONAL)
        and type(user["version"]) is int
        and user["status"] in _STATUSES
        and type(user["roles"]) is list
        and _is_time(user["created_at"])
        and _is_time(user["updated_at"])
        and (user["password_changed_at"] is None or _is_time(user["password_changed_at"]))
        and (user["deleted_at"] is None or _is_time(user["deleted_at"]))
    )
    return user if alike else None


def _changes(plain: Mapping[str, Any], personal: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """As events.wire.changes_to_wire; None for what is not stored as it writes it."""
    changes: dict[str, dict[str, Any]] = {}
    for name, change in chain(plain.items(), personal.items()):
        old, new = change["old"], change["new"]
        if len(change) != _CHANGE_FIELDS or (name in _CHECKED and not (_is_plain(name, old) and _is_plain(name, new))):
            return None
        changes[name] = {"old": old, "new": new}
    return changes


def _is_plain(name: str, value: Any) -> bool:  # noqa: ANN401 - a field's value
    if value is None:
        return True
    if name in TIMES:
        return _is_time(value)
    if name == "roles":
        return type(value) is list  # pyright: ignore[reportUnknownArgumentType]
    return value in _STATUSES


# an event has the same moment in several places
@lru_cache(maxsize=64)
def _is_time(text: str) -> bool:
    """Whether events.wire.time_to_wire would write this moment so. Raises TypeError and ValueError for no moment."""
    datetime.fromisoformat(text)
    return _TIME.fullmatch(text) is not None


def _traced(metadata: Mapping[str, Any], position: int, version: int) -> list[Header] | None:
    """The headers behind the schema's."""
    actor = metadata["actor"]
    known = (
        metadata.keys() <= _METADATA
        and "request_id" in metadata
        and actor.keys() <= _ACTOR
        and "subject" in actor
        and "kind" in actor
    )
    if not known:
        return None
    headers: list[Header] = [
        ("ce_sequence", sequence_bytes(position)),
        ("ce_userversion", b"%d" % version),
        ("ce_correlationid", metadata["correlation_id"].encode()),
        ("ce_causationid", metadata["causation_id"].encode()),
    ]
    if (traceparent := metadata.get("traceparent")) is not None:
        headers.append(("ce_traceparent", traceparent.encode()))
    return headers


async def outgoing_after(
    connection: Connection, keyring: Keyring, encoder: Encoder, position: Position, *, limit: int
) -> Stretch[Outgoing]:
    """As events.reader.events_after, which see. Raises WrongKey."""
    cursor = connection.cursor(binary=True)
    await cursor.execute(AFTER, (position, limit), prepare=True)
    made: dict[Position, Outgoing | None] = {}
    end: Position | None = None
    while rows := await cursor.fetchmany(AT_ONCE):
        made |= {Position(row["position"]): encoder.outgoing(row) for row in rows if row["carried"]}
        end = Position(rows[-1]["position"])
        # others of this process have their turn
        await asyncio.sleep(0)
    whole = [position for position, found in made.items() if found is None]
    events: dict[Position, RecordedEvent | Unreadable] = {}
    if whole:
        # next to each other in nearly every case: of a user who was erased, or from before the newest version
        read = await events_after(connection, keyring, Position(whole[0] - 1), limit=whole[-1] - whole[0] + 1)
        events = {one.position: one for one in read.found}
    return Stretch(found=list(_in_order(made, events, encoder.origin)), end=end)


def _in_order(
    made: Mapping[Position, Outgoing | None], events: Mapping[Position, RecordedEvent | Unreadable], origin: Origin
) -> Iterator[Outgoing | Unreadable]:
    for position, found in made.items():
        if found is not None:
            yield found
        elif (event := events.get(position)) is not None:
            # what an operator has discarded meanwhile is not there
            yield event if isinstance(event, Unreadable) else Outgoing.of(event, origin)
