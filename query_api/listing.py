import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Select, func, select, tuple_

from events.email import canonical_email
from events.record import EXAMPLE, ErasedRecord, UserRecord
from events.user import Status
from events.wire import time_to_wire
from projector.read_model import users
from query_api.cursors import bad_cursor, cursor_of, place_in

MAX_LIMIT: Final = 200
COLUMNS: Final = {
    "created_at": users.c.created_at,
    "updated_at": users.c.updated_at,
    "email": users.c.email_canonical,
}
# Postgres has no text with U+0000
Searched = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
Sort = Literal["created_at", "-created_at", "email", "-email", "updated_at", "-updated_at"]


class Listing(BaseModel):
    """Which users, in which order, from where."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(None, max_length=2000, description="from the Link header or next_cursor of a page")
    sort: Sort = Field("created_at", description="a minus sorts downwards")
    email: Annotated[Searched, Field(max_length=254)] | None = Field(
        None, description="exactly this address, however it is typed"
    )
    status: Status | None = None
    role: Annotated[Searched, Field(max_length=32)] | None = None
    q: Annotated[Searched, Field(max_length=100)] | None = Field(
        None, description="part of the e-mail address or display name"
    )
    as_of: AwareDatetime | None = Field(
        None,
        description="users as they were at this moment (RFC 3339, with an offset), in the order of creation; needs"
        " events:read",
        examples=["2026-03-01T00:00:00Z"],
    )
    at_position: int | None = Field(
        None, ge=0, le=2**63 - 1, description="users as they were once the log had this position; needs events:read"
    )

    def filters(self) -> dict[str, str]:
        """The filters as they stand in a query string."""
        sent = self.model_dump(mode="json", include={"email", "status", "role", "q"}, exclude_none=True)
        return {name: str(value) for name, value in sent.items()}

    def kind(self) -> str:
        """Names sort and filters, in few characters: a cursor goes with the list it was made for."""
        return hashlib.sha256(orjson.dumps([self.sort, self.filters()])).hexdigest()[:16]


class Page(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"users": [EXAMPLE], "next_cursor": None}]})

    users: list[UserRecord | ErasedRecord]
    next_cursor: str | None = Field(description="null: this is the last page")


def query_of(listing: Listing) -> Select[Any]:
    """One row more than the limit, so that the caller sees whether there is a next page."""
    column, descending = COLUMNS[listing.sort.removeprefix("-")], listing.sort.startswith("-")
    query = select(users).where(users.c.deleted_at.is_(None), *_conditions(listing))
    if listing.cursor is not None:
        value, last_id = _open_cursor(listing)
        key, place = tuple_(column, users.c.id), tuple_(value, last_id)
        query = query.where(key < place if descending else key > place)
    order = (column.desc(), users.c.id.desc()) if descending else (column.asc(), users.c.id.asc())
    return query.order_by(*order).limit(listing.limit + 1)


def cursor_after(listing: Listing, row: Any) -> str:  # noqa: ANN401 - a SQLAlchemy row's mapping
    """The place after this row: the sort key and id, with what they belong to."""
    value = row[COLUMNS[listing.sort.removeprefix("-")].name]
    key = time_to_wire(value) if isinstance(value, datetime) else value
    return cursor_of([listing.kind(), key, str(row["id"])])


def _conditions(listing: Listing) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if listing.email is not None:
        conditions.append(users.c.email_canonical == canonical_email(listing.email))
    if listing.status is not None:
        conditions.append(users.c.status == listing.status.value)
    if listing.role is not None:
        conditions.append(users.c.roles.contains([listing.role]))
    if listing.q is not None:
        escaped = listing.q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        conditions.append(users.c.search.like(func.lower(func.normalize(f"%{escaped}%"))))
    return conditions


def _open_cursor(listing: Listing) -> tuple[datetime | str, UUID]:
    try:
        kind, key, last_id = place_in(listing.cursor or "")
        if kind != listing.kind():
            raise bad_cursor("belongs to a list with another sort or other filters")
        return _sort_key(listing, key), UUID(last_id)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise bad_cursor("is not one that a page gave") from None


def _sort_key(listing: Listing, key: object) -> datetime | str:
    """Raises ValueError and OverflowError for what no page's last row can have."""
    if not isinstance(key, str) or "\0" in key:
        raise ValueError("not a sort key")
    if COLUMNS[listing.sort.removeprefix("-")] is not users.c.email_canonical:
        return datetime.fromisoformat(key).astimezone(UTC)
    return key
