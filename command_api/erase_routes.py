from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Response
from fastapi import Request as HttpRequest

from command_api.erasing import Eraser
from command_api.preconditions import idempotency_of
from command_api.routes import Id, Key, Reason
from events.receipts import ReceiptBody, receipt_of
from events.recording import Metadata
from identity.access_tokens import Caller
from identity.caller import needs
from identity.roles import Scope
from runtime.correlation import current
from runtime.problems import described
from runtime.requests import StrictJsonRoute

router = APIRouter(tags=["erasure"], route_class=StrictJsonRoute)

HEADERS: dict[str, Any] = {
    "Location": {"description": "the receipt, at the query API", "schema": {"type": "string"}},
    "Event-Position": {"description": "of the UserDeleted, once there is one", "schema": {"type": "integer"}},
}


@router.post(
    "/users/{id}/erase",
    status_code=202,
    summary="Erase a person for good",
    response_model=ReceiptBody,
    responses={
        200: {"description": "It is done", "model": ReceiptBody, "headers": HEADERS},
        202: {"description": "It is recorded, and goes on by itself", "headers": HEADERS},
        **described(400, 401, 403, 404, 422, 503),
    },
)
async def erase_user(
    http: HttpRequest, caller: Annotated[Caller, needs(Scope.USERS_ERASE)], user_id: Id, key: Key, why: Reason
) -> Response:
    """Living or deleted: nothing of them can be read again, and their e-mail address is free. It cannot be taken back.

    Nobody may change the user any more once this is answered. The same again answers how far it is by then.
    """
    eraser: Eraser = http.app.state.eraser
    correlation = current.get()
    if correlation is None:
        raise LookupError("no correlation: the request frame is missing")
    erasure = await eraser.request(
        user_id,
        Metadata.of(correlation, caller.actor, why),
        authority=caller.scopes,
        idempotency=await idempotency_of(http, caller, key),
    )
    headers = {"Location": f"/users/{user_id}/erasure"}
    if erasure.position is not None:
        headers["Event-Position"] = str(erasure.position)
    status = 202 if erasure.completed_at is None else 200
    return Response(orjson.dumps(receipt_of(erasure, http.app.state.settings)), status, headers, "application/json")
