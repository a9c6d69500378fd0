from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi import Request as HttpRequest

from events.record import ErasedRecord, UserRecord
from events.record import record_of as user_record
from identity.access_tokens import Caller
from identity.caller import GATE, check_scopes, needs
from identity.roles import Scope
from query_api.freshness import Freshness, Wanted, wanted
from query_api.listing import Listing, Page
from query_api.listing_now import Lists
from query_api.listing_then import link_of, page_then
from query_api.model import Found, Model
from query_api.moments import Moment, archive_of, checked, position_of, readable, user_moment
from query_api.pages import PageNow
from runtime.entity_tags import entity_tags
from runtime.problems import Problem, described

router = APIRouter(tags=["users"])

Fresh = Annotated[Wanted | None, Depends(wanted)]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", description='an ETag that you hold: "3"')]

AS_OF_POSITION: dict[str, Any] = {
    "description": "with a moment: the position it meant; at_position with it gives the same for ever",
    "schema": {"type": "integer"},
}
READ: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "ETag": {"description": "the user's version", "schema": {"type": "string", "examples": ['"3"']}},
            "Event-Position": {"description": "of the event that the record is of", "schema": {"type": "integer"}},
            "As-Of-Position": AS_OF_POSITION,
        }
    },
    304: {"description": "Not modified: the version in If-None-Match is the newest"},
    **described(401, 403, 404, 410, 422, 503),
}


@router.get("/users/me", summary="Read yourself", response_model=UserRecord, responses=READ)
async def read_me(
    http: HttpRequest, caller: Annotated[Caller, needs(Scope.SELF)], fresh: Fresh, if_none_match: IfNoneMatch = None
) -> Response:
    return await _read(http, caller, UUID(caller.subject), fresh, if_none_match)


@router.get("/users/{id}", summary="Read a user", response_model=UserRecord | ErasedRecord, responses=READ)
async def read_user(
    http: HttpRequest,
    caller: Annotated[Caller, needs(Scope.USERS_READ)],
    user_id: Annotated[UUID, Path(alias="id")],
    moment: Annotated[Moment, Depends(user_moment)],
    fresh: Fresh,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """404: there never was such a user. 410: the user was deleted.

    With `as_of`, `at_position` or `version` it is the record as it was then, read from the log by one look-up; that
    needs the scope events:read too, and finds users who were deleted since; of those who were erased since, without
    what was personal.
    """
    if moment.asked:
        return await _read_then(http, caller, user_id, moment)
    return await _read(http, caller, user_id, fresh, if_none_match)


@router.get(
    "/users",
    summary="List users",
    response_model=Page,
    responses={
        200: {
            "headers": {
                "Link": {"description": 'the next page: <...>; rel="next"', "schema": {"type": "string"}},
                "As-Of-Position": AS_OF_POSITION,
                "Unreadable-Users": {
                    "description": "with a moment: how many users of the page are left out, as their events cannot be"
                    " read",
                    "schema": {"type": "integer"},
                },
                "Parked-Users": {
                    "description": "with Min-Position: of how many users an event up to there is held back, if of any;"
                    " the list has them as before it",
                    "schema": {"type": "integer"},
                },
            }
        },
        **described(401, 403, 422, 503),
    },
)
async def list_users(
    http: HttpRequest,
    caller: Annotated[Caller, needs(Scope.USERS_READ)],
    listing: Annotated[Listing, Query()],
    fresh: Fresh,
) -> Response:
    """Living users, page by page: a page costs the same wherever it is, and none is shown twice or left out.

    With `as_of` or `at_position`: those who lived then, as they were, in the order in which they were created (`sort`
    may be created_at or -created_at). All filters go with it. A page examines up to 2,000 users, one look-up each: with
    a rare filter it may be short, or empty, and still name a next one.
    """
    if listing.as_of is not None or listing.at_position is not None:
        return await _list_then(http, caller, listing)
    headers = await _waited(http, caller, fresh)
    lists: Lists = http.app.state.lists
    return list_answer(await lists.page(listing), headers)


async def _read(
    http: HttpRequest, caller: Caller, user_id: UUID, fresh: Wanted | None, if_none_match: str | None
) -> Response:
    headers = await _waited(http, caller, fresh, user_id)
    model: Model = http.app.state.model
    found = await model.user(str(user_id))
    if found is None:
        raise Problem(404, "user_not_found", "User not found")
    if found.deleted:
        raise Problem(410, "user_deleted", "User was deleted")
    return user_answer(found, headers, http.headers.getlist("if-none-match") if if_none_match is not None else ())


def list_answer(page: PageNow, told: Mapping[str, str]) -> Response:
    """`told` are headers of the answer to begin with."""
    link = {} if page.next is None else {"Link": f'<{page.next}>; rel="next"'}
    return Response(page.body, 200, {**told, **link}, "application/json")


def user_answer(found: Found, told: Mapping[str, str], if_none_match: Sequence[str]) -> Response:
    """`told` are headers of the answer to begin with, `if_none_match` the lines of that one."""
    headers = {
        **told,
        "ETag": f'"{found.version}"',
        "Event-Position": str(found.position),
        "Cache-Control": "no-cache",
    }
    if if_none_match and _holds(if_none_match, found.version):
        return Response(status_code=304, headers=headers)
    return Response(found.body, 200, headers, "application/json")


async def _read_then(http: HttpRequest, caller: Caller, user_id: UUID, moment: Moment) -> Response:
    check_scopes(http, caller, [Scope.USERS_READ, Scope.EVENTS_READ])
    archive = archive_of(http)
    headers: dict[str, str] = {}
    if moment.version is not None:
        entry = await archive.at_version(user_id, moment.version)
    else:
        position = await position_of(archive, moment)
        entry = await archive.as_of(user_id, position)
        headers["As-Of-Position"] = str(position)
    if entry is None:
        raise Problem(404, "user_not_found", "There was no such user then, or no such version of them.")
    user = readable(entry).event.user
    if user.deleted_at is not None:
        raise Problem(410, "user_deleted", "User was deleted")
    headers |= {"ETag": f'"{entry.version}"', "Event-Position": str(entry.position), "Cache-Control": "no-cache"}
    return Response(orjson.dumps(user_record(user)), 200, headers, "application/json")


async def _list_then(http: HttpRequest, caller: Caller, listing: Listing) -> Response:
    check_scopes(http, caller, [Scope.USERS_READ, Scope.EVENTS_READ])
    archive = archive_of(http)
    position = await position_of(archive, checked(Moment(as_of=listing.as_of, at_position=listing.at_position)))
    page = await page_then(archive, listing, position)
    headers = {"As-Of-Position": str(position)}
    if page.cursor is not None:
        headers["Link"] = f'</users?{urlencode(link_of(listing, position, page.cursor))}>; rel="next"'
    if page.unreadable:
        headers["Unreadable-Users"] = str(page.unreadable)
    body = {"users": [user_record(one.event.user) for one in page.found], "next_cursor": page.cursor}
    return Response(orjson.dumps(body), 200, headers, "application/json")


async def _waited(
    http: HttpRequest, caller: Caller, fresh: Wanted | None, user_id: UUID | None = None
) -> dict[str, str]:
    if fresh is None:
        return {}
    freshness: Freshness = http.app.state.freshness
    headers = dict(await freshness.wait(fresh, user_id))
    if fresh.wait:
        # whoever was logged out while waiting is told nothing any more
        await GATE.still(http, caller)
    return headers


def _holds(if_none_match: Sequence[str], version: int) -> bool:
    """RFC 9110, section 13.1.2: weak comparison. What is no list of tags matches nothing."""
    try:
        tags = entity_tags(if_none_match)
    except ValueError:
        return False
    return tags is None or any(tag.opaque == str(version) for tag in tags)
