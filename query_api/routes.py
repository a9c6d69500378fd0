from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi import Request as HttpRequest
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from events.record import UserRecord
from identity.caller import Caller
from query_api.freshness import Freshness, Wanted, wanted
from query_api.listing import Listing, Page, cursor_after, query_of
from query_api.model import Model, record_of
from runtime.entity_tags import entity_tags
from runtime.failures import Unavailable
from runtime.problems import Problem, described

router = APIRouter(tags=["users"])

Fresh = Annotated[Wanted | None, Depends(wanted)]


@router.get(
    "/users/{id}",
    summary="Read a user",
    response_model=UserRecord,
    responses={
        200: {
            "headers": {
                "ETag": {"description": "the user's version", "schema": {"type": "string", "examples": ['"3"']}},
                "Event-Position": {"description": "of the user's newest event", "schema": {"type": "integer"}},
            }
        },
        304: {"description": "Not modified: the version in If-None-Match is the newest"},
        **described(401, 404, 410, 422, 503),
    },
)
async def read_user(
    http: HttpRequest,
    _: Caller,
    user_id: Annotated[UUID, Path(alias="id")],
    fresh: Fresh,
    if_none_match: Annotated[
        str | None, Header(alias="If-None-Match", description='an ETag that you hold: "3"')
    ] = None,
) -> Response:
    """404: there never was such a user. 410: the user was deleted."""
    headers = dict(await _freshness(http).wait(fresh, user_id))
    model: Model = http.app.state.model
    row = await model.user(user_id)
    if row is None:
        raise Problem(404, "user_not_found", "User not found")
    if row["deleted_at"] is not None:
        raise Problem(410, "user_deleted", "User was deleted")
    headers |= {
        "ETag": f'"{row["version"]}"',
        "Event-Position": str(row["position"]),
        "Cache-Control": "no-cache",
    }
    if if_none_match is not None and _holds(http.headers.getlist("if-none-match"), row["version"]):
        return Response(status_code=304, headers=headers)
    return Response(orjson.dumps(record_of(row)), 200, headers, "application/json")


@router.get(
    "/users",
    summary="List users",
    response_model=Page,
    responses={
        200: {"headers": {"Link": {"description": 'the next page: <...>; rel="next"', "schema": {"type": "string"}}}},
        **described(401, 422, 503),
    },
)
async def list_users(http: HttpRequest, _: Caller, listing: Annotated[Listing, Query()], fresh: Fresh) -> Response:
    """Living users, page by page: a page costs the same wherever it is, and none is shown twice or left out."""
    headers = dict(await _freshness(http).wait(fresh))
    engine: AsyncEngine = http.app.state.engine
    try:
        async with engine.connect() as connection:
            rows = list((await connection.execute(query_of(listing))).mappings())
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise Unavailable(f"the list was not read: {error}") from error
    cursor = None
    if len(rows) > listing.limit:
        rows = rows[: listing.limit]
        cursor = cursor_after(listing, rows[-1])
        query = urlencode({**listing.filters(), "sort": listing.sort, "limit": str(listing.limit), "cursor": cursor})
        headers["Link"] = f'</users?{query}>; rel="next"'
    body = {"users": [record_of(dict(row)) for row in rows], "next_cursor": cursor}
    return Response(orjson.dumps(body), 200, headers, "application/json")


def _freshness(http: HttpRequest) -> Freshness:
    return http.app.state.freshness


def _holds(if_none_match: list[str], version: int) -> bool:
    """RFC 9110, section 13.1.2: weak comparison. What is no list of tags matches nothing."""
    try:
        tags = entity_tags(if_none_match)
    except ValueError:
        return False
    return tags is None or any(tag.opaque == str(version) for tag in tags)
