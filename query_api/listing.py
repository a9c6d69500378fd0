import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, LiteralString
from uuid import UUID

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from events.email import canonical_email
from events.record import EXAMPLE, ErasedRecord, UserRecord
from events.user import Status
from query_api.cursors import bad_cursor, cursor_of, place_in
from query_api.model import RECORD

MAX_LIMIT: Final = 200
COLUMNS: Final[Mapping[str, LiteralString]] = {
    "created_at": "u.created_at",
    "updated_at": "o.updated_at",
    "email": "u.email_canonical",
}
USERS: Final[LiteralString] = "read_model.users u"
# the order by update is a table of its own, of those who are not deleted
UPDATED: Final[LiteralString] = (
    "read_model.users_updated o JOIN read_model.users u ON u.id = o.id AND o.updated_at IS NOT NULL"
)
# in the order in which a link has them
FILTERS: Final[Mapping[str, LiteralString]] = {
    "email": "u.email_canonical = %(email)s",
    "status": "u.status = %(status)s",
    "role": "u.roles @> ARRAY[%(role)s::text]",
    "q": "u.search LIKE lower(normalize(%(q)s::text))",
}
# Postgres has no text with U+0000
Searched = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
Sort = Literal["created_at", "-created_at", "email", "-email", "updated_at", "-updated_at"]


class Listing(BaseModel):
    """Which users, in which order, from where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
        sent = self.model_dump(mode="json", include=set(FILTERS), exclude_none=True)
        return {name: str(value) for name, value in sent.items()}

    def kind(self) -> str:
        """Names sort and filters, in few characters: a cursor goes with the list it was made for."""
        return hashlib.sha256(orjson.dumps([self.sort, self.filters()])).hexdigest()[:16]


class Page(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"users": [EXAMPLE], "next_cursor": None}]})

    users: list[UserRecord | ErasedRecord]
    next_cursor: str | None = Field(description="null: this is the last page")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A list in SQL; `walks` when its order alone finds the rows, whatever the values are.

    Rows have the columns of RECORD and `place`: what they are sorted by, if that is none of them. There is one more
    than the limit when there is a next page.
    """

    sql: bytes
    values: Mapping[str, object]
    walks: bool


def question_of(listing: Listing) -> Question:
    """Raises a 422 problem for a cursor that is of no such list."""
    compared = _compared(listing)
    values = dict(compared)
    conditions = ["u.deleted_at IS NULL", *(FILTERS[name] for name in compared)]
    column, descending = COLUMNS[listing.sort.removeprefix("-")], listing.sort.startswith("-")
    source, user_id = (UPDATED, "o.id") if column == COLUMNS["updated_at"] else (USERS, "u.id")
    if listing.cursor is not None:
        key, last_id = _open_cursor(listing)
        values |= {"key": key, "last_id": last_id}
        conditions.append(f"({column}, {user_id}) {'<' if descending else '>'} (%(key)s, %(last_id)s)")
    direction = "DESC" if descending else "ASC"
    place = column if column == COLUMNS["email"] else "NULL"
    # the planner must know the limit, so it is no parameter
    sql = (
        f"SELECT {RECORD}, {place} AS place FROM {source} WHERE {' AND '.join(conditions)}"  # noqa: S608 - only from above
        f" ORDER BY {column} {direction}, {user_id} {direction} LIMIT {listing.limit + 1}"
    )
    return Question(sql=sql.encode(), values=values, walks=not compared)


def page_of(listing: Listing, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str | None]:
    """The users of a question's rows, and the cursor of the page after them."""
    places = [row.pop("place") for row in rows]
    if len(rows) <= listing.limit:
        return rows, None
    rows = rows[: listing.limit]
    last, place = rows[-1], places[len(rows) - 1]
    key = last[listing.sort.removeprefix("-")] if place is None else place
    return rows, cursor_after(listing, key, last["id"])


def cursor_after(listing: Listing, key: str, user_id: str) -> str:
    """The place after this user: the sort key, a time as it is on the wire, and id, with what they belong to."""
    return cursor_of([listing.kind(), key, user_id])


def _compared(listing: Listing) -> dict[str, object]:
    """What the filters that are asked for compare with."""
    values: dict[str, object] = {}
    if listing.email is not None:
        values["email"] = canonical_email(listing.email)
    if listing.status is not None:
        values["status"] = listing.status.value
    if listing.role is not None:
        values["role"] = listing.role
    if listing.q is not None:
        escaped = listing.q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        values["q"] = f"%{escaped}%"
    return values


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
    if COLUMNS[listing.sort.removeprefix("-")] != COLUMNS["email"]:
        return datetime.fromisoformat(key).astimezone(UTC)
    return key
