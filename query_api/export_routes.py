from collections.abc import AsyncGenerator
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path
from fastapi import Request as HttpRequest
from starlette.responses import StreamingResponse

from events.recording import Position
from identity.access_tokens import Caller
from identity.caller import needs
from identity.roles import Scope
from query_api.export import ExportBody, exported
from query_api.moments import LARGEST, archive_of
from runtime.problems import Problem, described

router = APIRouter(tags=["export"])

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {"Content-Disposition": {"description": "names the file", "schema": {"type": "string"}}},
    },
    **described(401, 403, 404, 410, 422, 503),
}


@router.get("/users/me/export", summary="All that is held of yourself", response_model=ExportBody, responses=ANSWERS)
async def export_me(http: HttpRequest, caller: Annotated[Caller, needs(Scope.SELF)]) -> StreamingResponse:
    """Your record, every change of it and your logins (GDPR, articles 15 and 20)."""
    return await _export(http, UUID(caller.subject))


@router.get("/users/{id}/export", summary="All that is held of a person", response_model=ExportBody, responses=ANSWERS)
async def export_user(
    http: HttpRequest,
    _: Annotated[Caller, needs(Scope.EVENTS_READ, Scope.USERS_READ)],
    user_id: Annotated[UUID, Path(alias="id", description="the user's id")],
) -> StreamingResponse:
    """As a person gets it themselves; of deleted users too, until they are erased (410)."""
    return await _export(http, user_id)


async def _export(http: HttpRequest, user_id: UUID) -> StreamingResponse:
    archive = archive_of(http)
    newest = await archive.as_of(user_id, Position(LARGEST))
    if newest is None:
        raise Problem(404, "user_not_found", "User not found")
    if newest.erased:
        raise Problem(410, "user_erased", "The user was erased: nothing personal is left.")
    pieces = exported(archive, http.app.state.logs, newest)
    # what cannot be read at all is told before the document begins
    first = await anext(pieces)
    headers = {
        "Content-Disposition": f'attachment; filename="user-{user_id}.json"',
        "Cache-Control": "no-store",
    }
    return StreamingResponse(_all(first, pieces), headers=headers, media_type="application/json")


async def _all(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for piece in rest:
        yield piece
