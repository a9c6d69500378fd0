from collections.abc import Iterable, Mapping
from typing import Any

from events.email import canonical_email
from events.reader import LoggedRecord, Unreadable

Row = dict[str, Any]

PERSONAL_AND_STATE = ("email", "display_name", "status", "roles", "attributes", "password_changed_at")


class NoRow(Exception):
    """A record lacks what a row of the read model is made of; the message says nothing personal."""


def row_of(user: Mapping[str, Any], position: int) -> Row:
    """A row of read_model.users from the record on the wire; a deleted user's row keeps nothing personal.

    An erased user is shown as deleted from any of their events on: the last one says since when. Raises NoRow for
    what is no such record.
    """
    try:
        return _row(user, position)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # the kind of error alone: its text may quote what the record says
        raise NoRow(f"its record is not what a row is made of ({type(error).__name__})") from error


def _row(user: Mapping[str, Any], position: int) -> Row:
    row = {
        "id": user["id"],
        "version": user["version"],
        "first": user["version"],
        "position": position,
        "created_at": user["created_at"],
        "updated_at": user["updated_at"],
        "deleted_at": user["deleted_at"],
    }
    if user.get("erased"):
        row["deleted_at"] = user["deleted_at"] or user["updated_at"]
    elif user["deleted_at"] is None:
        row |= {name: user[name] for name in PERSONAL_AND_STATE}
        row["email_canonical"] = canonical_email(user["email"])
    return row


def row_of_logged(found: LoggedRecord | Unreadable) -> Row:
    """A row from an event of the log. Raises NoRow."""
    if isinstance(found, Unreadable):
        raise NoRow(found.reason)
    return row_of(found.record, found.position)


def folded(rows: Iterable[Row]) -> list[Row]:
    """One row a user: the newest, with the first version that the batch had of them."""
    newest: dict[str, Row] = {}
    for row in rows:
        held = newest.get(row["id"])
        if held is None:
            newest[row["id"]] = row
            continue
        first = min(held["first"], row["first"])
        newest[row["id"]] = (row if row["version"] > held["version"] else held) | {"first": first}
    return list(newest.values())
