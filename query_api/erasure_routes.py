from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Response
from fastapi import Request as HttpRequest

from events.erasures import erasure_of
from events.receipts import ReceiptBody, receipt_of
from identity.access_tokens import Caller
from identity.caller import needs
from identity.roles import Scope
from runtime.database import Session
from runtime.problems import Problem, described

router = APIRouter(tags=["erasure"])


@router.get(
    "/users/{id}/erasure",
    summary="The receipt of a person's erasure",
    response_model=ReceiptBody,
    responses=described(401, 403, 404, 422, 503),
)
async def read_erasure(
    http: HttpRequest,
    _: Annotated[Caller, needs(Scope.EVENTS_READ)],
    user_id: Annotated[UUID, Path(alias="id", description="the user's id")],
) -> Response:
    """What was done, where and when, who asked for it and why; and by when copies elsewhere hold nothing any more.

    404: nobody asked for it, and it is not due.
    """
    session: Session = http.app.state.logs
    erasure = await session.use(lambda connection: erasure_of(connection, user_id))
    if erasure is None:
        raise Problem(404, "no_erasure", "Nobody asked for this user to be erased.")
    body = receipt_of(erasure, http.app.state.settings)
    return Response(orjson.dumps(body), 200, {"Cache-Control": "no-cache"}, "application/json")
