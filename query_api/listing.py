import hashlib
import re
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
from events.wire import time_to_wire
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
    "(read_model.users_updated o JOIN read_model.users u ON u.id = o.id AND o.updated_at IS NOT NULL)"
)
PART: Final[LiteralString] = "read_model.folded(%(q)s::text)"
# in the order in which a link has them
FILTERS: Final[Mapping[str, LiteralString]] = {
    "email": "u.email_canonical = %(email)s",
    "status": "u.status = %(status)s",
    "role": "u.roles @> ARRAY[%(role)s::text]",
    "q": f"(read_model.folded(u.email) LIKE {PART} OR read_model.folded(' ' || u.display_name) LIKE {PART})",
}
# the order by update has what these compare with
ORDERED_FILTERS: Final = {"status", "role"}
# So many who come first in an order are looked through, before it is asked who there is at all: a few milliseconds, and
# enough to fill a page with whom one in two hundred is.
LOOKED_THROUGH: Final = 10_000
# A part without three letters or digits in a row is in no index: who has it is seen in the rows.
INDEXED: Final = re.compile(r"[^\W_]{3}")
# Whether one in a hundred has the part, of the 2,000 or so users of a hundred pages of the table, picked at random. The
# planner believes the same of all short parts: that many have them, so that a page of whom there is none was a walk
# through all of an order, half a second among a million users.
COMMON: Final[LiteralString] = f"""
SELECT count(*) >= 20 AS common
FROM read_model.users u
    TABLESAMPLE SYSTEM (least(100, 100 * 819200.0 / greatest(pg_relation_size('read_model.users'), 1)))
WHERE u.deleted_at IS NULL AND {FILTERS["q"]}
"""  # noqa: S608 - a constant
# Of those who are not many: by the indexes of names and of addresses, whatever the planner believes.
BY_PARTS: Final[LiteralString] = f"""
u.id = ANY (ARRAY(
    SELECT n.id FROM read_model.users_names n WHERE n.name LIKE {PART}
    UNION ALL
    SELECT a.id FROM read_model.users a WHERE a.deleted_at IS NULL AND read_model.folded(a.email) LIKE {PART}
))"""  # noqa: S608 - a constant
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

    @property
    def walks(self) -> bool:
        """Its order alone finds the users, wherever the page is."""
        return all(getattr(self, name) is None for name in FILTERS)

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
    """A list in SQL.

    The answer is a row: `users`, the JSON of each with commas between, or NULL; of the last of a full page `key`, which
    they are sorted by, and `id`; and whether there are `more`. `look` costs little, and gives the same page if it says
    that there are more; otherwise it has not said anything. `by_parts` gives the same page as `sql`, sooner unless
    COMMON says yes.

    A walk from a place has arrays for values: it asks for as many pages as these have elements, and a row's `number`,
    from 1, says of which it is.
    """

    sql: bytes
    values: Mapping[str, Any]
    look: bytes | None = None
    by_parts: bytes | None = None


def question_of(listing: Listing) -> Question:
    """Raises a 422 problem for a cursor that is of no such list."""
    compared = _compared(listing)
    values = dict(compared)
    filters = [FILTERS[name] for name in compared]
    column, descending = COLUMNS[listing.sort.removeprefix("-")], listing.sort.startswith("-")
    by_update = column == COLUMNS["updated_at"]
    source, user_id = (UPDATED, "o.id") if by_update else (USERS, "u.id")
    direction = "DESC" if descending else "ASC"
    walks = listing.walks
    after: list[str] = []
    if listing.cursor is not None:
        key, last_id = _open_cursor(listing)
        values |= {"key": [key], "last_id": [last_id]} if walks else {"key": key, "last_id": last_id}
        place = "(place.key, place.last_id)" if walks else "(%(key)s, %(last_id)s)"
        after.append(f"({column}, {user_id}) {'<' if descending else '>'} {place}")
    conditions = ["u.deleted_at IS NULL", *after]
    # the planner must know the limit, so it is no parameter
    order = f"ORDER BY {column} {direction}, {user_id} {direction} LIMIT"

    def page_of(selected: str) -> bytes:
        # an aggregate takes rows in the order in which a sorted subquery gives them
        page = f"""
SELECT array_to_string((array_agg(p.record))[:{listing.limit}], ',') AS users, count(*) > {listing.limit} AS more,
    (array_agg(p.key))[{listing.limit}] AS key, (array_agg(p.id))[{listing.limit}] AS id
FROM (SELECT {RECORD} AS record, {selected}) p"""  # noqa: S608 - only from above
        if walks and after:
            kind = "text" if column == COLUMNS["email"] else "timestamptz"
            places = f"unnest(%(key)s::{kind}[], %(last_id)s::uuid[]) WITH ORDINALITY AS place (key, last_id, number)"
            page = f"SELECT place.number, page.* FROM {places} CROSS JOIN LATERAL ({page}) page"  # noqa: S608 - as above
        return page.encode()

    def of_those(*those: str) -> bytes:
        where = " AND ".join((*conditions, *those))
        return page_of(f"{column} AS key, u.id FROM {source} WHERE {where} {order} {listing.limit + 1}")

    look = by_parts = None
    if listing.q is not None and listing.email is None and INDEXED.search(listing.q):
        by_parts = of_those(*(BY_PARTS if name == "q" else FILTERS[name] for name in compared))
        first = f"SELECT u.*, {column} AS key FROM {source} WHERE {' AND '.join(conditions)} {order} {LOOKED_THROUGH}"  # noqa: S608 - as above
        page = f"ORDER BY u.key {direction}, u.id {direction} LIMIT {listing.limit + 1}"
        look = page_of(f"u.key, u.id FROM ({first}) u WHERE {' AND '.join(filters)} {page}")
    elif by_update and compared and compared.keys() <= ORDERED_FILTERS:
        # the users themselves are read of those alone who are wanted
        places = " AND ".join(["o.updated_at IS NOT NULL", *after])
        first = f"SELECT o.* FROM read_model.users_updated o WHERE {places} {order} {LOOKED_THROUGH}"  # noqa: S608 - as above
        wanted = " AND ".join(condition.replace("u.", "o.") for condition in filters)
        page = f"ORDER BY o.updated_at {direction}, o.id {direction} LIMIT {listing.limit + 1}"
        ids = f"SELECT o.id, o.updated_at FROM ({first}) o WHERE {wanted} {page}"  # noqa: S608 - as above
        look = page_of(f"o.updated_at AS key, u.id FROM ({ids}) o JOIN read_model.users u ON u.id = o.id {page}")
    return Question(sql=of_those(*filters), values=values, look=look, by_parts=by_parts)


def cursor_after(listing: Listing, key: datetime | str, user_id: UUID) -> str:
    """The place after this user: the sort key, a time as it is on the wire, and id, with what they belong to."""
    place = time_to_wire(key) if isinstance(key, datetime) else key
    return cursor_of([listing.kind(), place, str(user_id)])


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
