"""Pages of users as they were at a moment, from the log: in the order of their creation."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from events.archive import Archive
from events.email import canonical_email
from events.recording import Position, RecordedEvent
from query_api.cursors import bad_cursor, cursor_of, place_in
from query_api.listing import Listing
from query_api.moments import LARGEST
from runtime.problems import Fault, Problem

SORTS: Final = ("created_at", "-created_at")
# A page looks at so many users at most. One that comes to the end of that is short, and says where to go on.
EXAMINED: Final = 2_000
AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PageThen:
    """`unreadable` counts the users of the page whose record cannot be opened; they are left out of `found`."""

    found: list[RecordedEvent]
    cursor: str | None
    unreadable: int


async def page_then(archive: Archive, listing: Listing, position: Position) -> PageThen:
    """The users of a page as they were when the log had `position`. Raises a 422 problem for another sort or cursor.

    Costs one look-up for each user that is examined, whatever their history; an e-mail address or a part of a name is
    compared after opening the record. It never examines more than EXAMINED users.
    """
    if listing.sort not in SORTS:
        fault = Fault(detail=f"with a moment, only {' or '.join(SORTS)}", code="no_such_sort_then", parameter="sort")
        raise Problem(422, "no_such_sort_then", "Former states are listed in the order of creation.", faults=[fault])
    newest_first = listing.sort.startswith("-")
    beyond = _open_cursor(listing, position) if listing.cursor is not None else _start(position, newest_first)
    found: list[RecordedEvent] = []
    unreadable = examined = 0
    while examined < EXAMINED:
        then = await archive.users_then(
            position,
            beyond=beyond,
            newest_first=newest_first,
            status=listing.status.value if listing.status is not None else None,
            role=listing.role,
            limit=AT_ONCE,
        )
        for user in then:
            beyond = user.created
            examined += 1
            if user.entry is None:
                continue
            if user.entry.recorded is None:
                unreadable += 1
            elif _is_wanted(listing, user.entry.recorded):
                found.append(user.entry.recorded)
                if len(found) == listing.limit:
                    return PageThen(found=found, cursor=_cursor(listing, position, beyond), unreadable=unreadable)
        if len(then) < AT_ONCE:
            return PageThen(found=found, cursor=None, unreadable=unreadable)
    return PageThen(found=found, cursor=_cursor(listing, position, beyond), unreadable=unreadable)


def _is_wanted(listing: Listing, recorded: RecordedEvent) -> bool:
    user = recorded.event.user
    if user.erased and (listing.email is not None or listing.q is not None):
        # nobody can say any more what they were called
        return False
    if listing.email is not None and canonical_email(user.email) != canonical_email(listing.email):
        return False
    if listing.q is None:
        return True
    part = _folded(listing.q)
    return part in _folded(user.email) or (user.display_name is not None and part in _folded(f" {user.display_name}"))


def _folded(text: str) -> str:
    # as read_model.folded, and a name behind a blank, as in read_model.users_names
    return unicodedata.normalize("NFC", text).lower()


def _start(position: Position, newest_first: bool) -> Position:  # noqa: FBT001 - a direction
    return Position(position + 1) if newest_first else Position(0)


def _cursor(listing: Listing, position: Position, beyond: Position) -> str:
    return cursor_of([listing.kind(), position, beyond])


def _open_cursor(listing: Listing, position: Position) -> Position:
    try:
        kind, at, beyond = place_in(listing.cursor or "")
    except (ValueError, TypeError):
        raise bad_cursor("is not one that a page gave") from None
    if not (isinstance(beyond, int) and 0 <= beyond <= LARGEST):
        raise bad_cursor("is not one that a page gave")
    if (kind, at) != (listing.kind(), position):
        raise bad_cursor("belongs to a list of another moment, with another sort or other filters")
    return Position(beyond)


def link_of(listing: Listing, position: Position, cursor: str) -> Mapping[str, Any]:
    """The query of the next page: of the same moment for ever."""
    return {
        **listing.filters(),
        "at_position": str(position),
        "sort": listing.sort,
        "limit": str(listing.limit),
        "cursor": cursor,
    }
