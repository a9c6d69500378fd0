from collections.abc import Iterable, Mapping
from typing import Any

from events.email import canonical_email

PERSONAL_AND_STATE = ("email", "display_name", "status", "roles", "attributes", "password_changed_at")


def row_of(user: Mapping[str, Any], position: int) -> dict[str, Any]:
    """A row of read_model.users from the record on the wire; a deleted user's row keeps nothing personal."""
    row = {
        "id": user["id"],
        "version": user["version"],
        "first": user["version"],
        "position": position,
        "created_at": user["created_at"],
        "updated_at": user["updated_at"],
        "deleted_at": user["deleted_at"],
    }
    if user["deleted_at"] is None:
        row |= {name: user[name] for name in PERSONAL_AND_STATE}
        row["email_canonical"] = canonical_email(user["email"])
    return row


def folded(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a user: the newest, with the first version that the batch had of them."""
    newest: dict[str, dict[str, Any]] = {}
    for row in rows:
        held = newest.get(row["id"])
        if held is None:
            newest[row["id"]] = row
            continue
        first = min(held["first"], row["first"])
        newest[row["id"]] = (row if row["version"] > held["version"] else held) | {"first": first}
    return list(newest.values())
