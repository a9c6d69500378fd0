"""What the log says of one user: every event, and the difference of two states."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Query, Response
from fastapi import Request as HttpRequest
from pydantic import AwareDatetime

from events.archive import Archive
from events.histories import Entry
from identity.access_tokens import Caller
from identity.caller import needs
from identity.roles import Scope
from query_api.cursors import bad_cursor, cursor_of, place_in
from query_api.history import DiffBody, HistoryBody, changes_body, event_body, is_erased, state_body
from query_api.listing import MAX_LIMIT
from query_api.moments import archive_of, position_at, readable
from runtime.problems import Fault, Problem, described

LAST_VERSION = 2**31 - 1

router = APIRouter(tags=["history"])

Auditor = Annotated[Caller, needs(Scope.EVENTS_READ)]
Id = Annotated[UUID, Path(alias="id", description="the user's id")]
Order = Literal["oldest", "newest"]
LINK: dict[str, Any] = {"Link": {"description": 'the next page: <...>; rel="next"', "schema": {"type": "string"}}}


@router.get(
    "/users/{id}/history",
    summary="Who changed what of a user, when and why",
    response_model=HistoryBody,
    responses={200: {"headers": LINK}, **described(401, 403, 404, 422, 503)},
)
async def read_history(
    http: HttpRequest,
    _: Auditor,
    user_id: Id,
    order: Annotated[Order, Query(description="which come first")] = "oldest",
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="from Link or next_cursor of a page")] = None,
) -> Response:
    """Every event of the user, page by page; of deleted users too. A page costs the same wherever it is.

    Of erased users as well: who did what, when and why, and every value that is not personal.
    """
    archive = archive_of(http)
    newest_first = order == "newest"
    beyond = _open_cursor(cursor, order) if cursor is not None else LAST_VERSION if newest_first else 0
    found = await archive.history(user_id, beyond=beyond, newest_first=newest_first, limit=limit + 1)
    if not found and cursor is None:
        raise Problem(404, "user_not_found", "User not found")
    following = None
    headers: dict[str, str] = {}
    if len(found) > limit:
        found = found[:limit]
        following = cursor_of([order, found[-1].version])
        headers["Link"] = f'</users/{user_id}/history?order={order}&limit={limit}&cursor={following}>; rel="next"'
    body = {"user_id": str(user_id), "events": [event_body(entry) for entry in found], "next_cursor": following}
    return Response(orjson.dumps(body), 200, headers, "application/json")


@router.get(
    "/users/{id}/diff",
    summary="What differs between two states of a user",
    response_model=DiffBody,
    responses=described(401, 403, 404, 422, 503),
)
async def read_diff(
    http: HttpRequest,
    _: Auditor,
    user_id: Id,
    earlier: Annotated[int | AwareDatetime, Query(alias="from", description="a version (0: none), or a moment")],
    later: Annotated[int | AwareDatetime, Query(alias="to", description="a version, or a moment")],
) -> Response:
    """Each of the two is a version of the user or a moment (RFC 3339, with an offset), in either order."""
    archive = archive_of(http)
    before = await _state(archive, user_id, earlier, "from")
    after = await _state(archive, user_id, later, "to")
    if before is None and after is None:
        await _check_known(archive, user_id)
    states = [readable(entry).event.user if entry is not None else None for entry in (before, after)]
    body = {
        "user_id": str(user_id),
        "from": state_body(before),
        "to": state_body(after),
        "erased": is_erased(*states),
        "changes": changes_body(*states),
    }
    return Response(orjson.dumps(body), 200, media_type="application/json")


async def _state(archive: Archive, user_id: UUID, place: int | datetime, parameter: str) -> Entry | None:
    if isinstance(place, datetime):
        return await archive.as_of(user_id, await position_at(archive, place, parameter))
    if place == 0:
        return None
    entry = await archive.at_version(user_id, place) if 0 < place <= LAST_VERSION else None
    if entry is None:
        await _check_known(archive, user_id)
        fault = Fault(detail="the user has no such version", code="no_such_version", parameter=parameter)
        raise Problem(404, "no_such_version", f"There is no version {place} of this user.", faults=[fault])
    return entry


async def _check_known(archive: Archive, user_id: UUID) -> None:
    if not await archive.history(user_id, beyond=0, newest_first=False, limit=1):
        raise Problem(404, "user_not_found", "User not found")


def _open_cursor(cursor: str, order: Order) -> int:
    try:
        kind, version = place_in(cursor)
    except (ValueError, TypeError):
        kind, version = None, None
    if kind == order and isinstance(version, int) and 0 < version <= LAST_VERSION:
        return version
    raise bad_cursor("is not one that a page of this order gave", what="history")
