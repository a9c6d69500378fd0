from dataclasses import dataclass
from urllib.parse import urlencode

import orjson

from query_api.listing import Listing, cursor_after
from query_api.model import body_of
from runtime.database import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class PageNow:
    """`body` is the JSON of Page; `next` the path and query of the next one."""

    body: bytes
    next: str | None


def page_now(listing: Listing, answer: Row) -> PageNow:
    """The page that a Question's answer has."""
    cursor = cursor_after(listing, answer["key"], answer["id"]) if answer["more"] else None
    users = body_of(f"[{answer['users'] or ''}]")
    body = b'{"users":%s,"next_cursor":%s}' % (users, orjson.dumps(cursor))
    if cursor is None:
        return PageNow(body=body, next=None)
    query = urlencode({**listing.filters(), "sort": listing.sort, "limit": str(listing.limit), "cursor": cursor})
    return PageNow(body=body, next=f"/users?{query}")
