from datetime import datetime
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from events.wire import value_to_wire
from identity.access_tokens import Caller
from identity.app_state import logins_of
from identity.caller import ANY_CALLER, for_every_caller, where
from identity.refusals import NO_STORE
from identity.roles import Scope
from identity.security_log import record
from runtime.problems import Problem, described

router = APIRouter(tags=["identity"])


class SessionShown(BaseModel):
    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    user_agent: str | None
    current: bool = Field(description="whether this request belongs to it")


class SessionList(BaseModel):
    sessions: list[SessionShown]


@router.get("/sessions", summary="List sessions", response_model=SessionList, responses=described(401, 403, 422, 503))
@for_every_caller
async def list_sessions(
    request: Request,
    caller: Annotated[Caller, ANY_CALLER],
    user_id: Annotated[UUID | None, Query(description="another user's; needs users:write")] = None,
) -> Response:
    """One's own living sessions, the newest first."""
    subject = UUID(caller.subject) if user_id is None else user_id
    if str(subject) != caller.subject and Scope.USERS_WRITE not in caller.scopes:
        record(
            "access.denied", subject=caller.subject, session=caller.session, scope=Scope.USERS_WRITE, **where(request)
        )
        raise Problem(403, "insufficient_scope", "Other users' sessions need the scope users:write.")
    found = await logins_of(request).sessions.living(subject)
    shown = [
        {
            "id": session.id,
            "created_at": value_to_wire(session.created_at),
            "last_used_at": value_to_wire(session.last_used_at),
            "expires_at": value_to_wire(session.expires_at),
            "user_agent": session.user_agent,
            "current": str(session.id) == caller.session,
        }
        for session in found
    ]
    return Response(orjson.dumps({"sessions": shown}), 200, NO_STORE, "application/json")


@router.delete(
    "/sessions/{id}",
    summary="End a session",
    status_code=204,
    response_class=Response,
    responses=described(401, 403, 404, 422, 503),
)
@for_every_caller
async def end_session(
    request: Request, caller: Annotated[Caller, ANY_CALLER], session: Annotated[UUID, Path(alias="id")]
) -> Response:
    """One's own; with users:write, anybody's."""
    owner = None if Scope.USERS_WRITE in caller.scopes else UUID(caller.subject)
    if not await logins_of(request).end(session, owner=owner, by=caller.subject):
        raise Problem(404, "session_not_found", "Session not found")
    return Response(status_code=204)
