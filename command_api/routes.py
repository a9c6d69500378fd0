from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Body, Depends, Path, Response
from fastapi import Request as HttpRequest

from command_api.bodies import ChangeUserBody, CreateUserBody, Deleted, Written
from command_api.decide import ChangeUser, Command, CreateUser, DeleteUser
from command_api.handler import CommandHandler, Outcome, Request
from command_api.preconditions import accepted_versions, idempotency_key, reason
from events.keyring import Digester
from events.record import record_of
from events.recording import Actor, Metadata
from events.user import EventId, UserId
from events.wire import value_to_wire
from events.writer import Idempotency
from identity.caller import ADMITTED, Caller
from identity.passwords import Passwords
from runtime.correlation import current
from runtime.ids import new_id
from runtime.problems import Problem, described
from runtime.requests import StrictJsonRoute

# who is calling is asked before anything else: a stranger learns nothing of what is wrong with the request
router = APIRouter(tags=["users"], route_class=StrictJsonRoute, dependencies=[ADMITTED])

Versions = Annotated[frozenset[int] | None, Depends(accepted_versions)]
Key = Annotated[str | None, Depends(idempotency_key)]
Reason = Annotated[str | None, Depends(reason)]
Id = Annotated[UUID, Path(alias="id", description="the user's id")]

EVENT_HEADERS: dict[str, Any] = {
    "ETag": {"description": "the user's version", "schema": {"type": "string", "examples": ['"3"']}},
    "Event-Position": {
        "description": "the event's place in the log: send it as Min-Position to read this write",
        "schema": {"type": "integer"},
    },
}
REFUSALS = described(400, 401, 404, 409, 410, 412, 413, 415, 422, 503)


async def json_body(request: HttpRequest) -> None:
    """Refuse a body that does not say it is JSON, rather than guess."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    accepted = ("application/json", "application/merge-patch+json")
    if kind not in accepted[: 2 if request.method == "PATCH" else 1]:
        headers = {"Accept-Patch": ", ".join(accepted)} if request.method == "PATCH" else {"Accept": accepted[0]}
        raise Problem(415, "not_json", "Send the body as JSON: Content-Type: application/json", headers=headers)


@router.post(
    "/users",
    status_code=201,
    summary="Create a user",
    response_model=Written,
    dependencies=[Depends(json_body)],
    responses={201: {"headers": EVENT_HEADERS}, **described(400, 401, 409, 413, 415, 422, 503)},
)
async def create_user(
    http: HttpRequest, caller: Caller, key: Key, why: Reason, body: Annotated[CreateUserBody, Body()]
) -> Response:
    """Appends UserCreated. The e-mail must not be another living user's (409)."""
    password = _checked_password(http, body)
    user_id = UserId(new_id())
    command = CreateUser(
        event_id=EventId(new_id()),
        user_id=user_id,
        at=datetime.now(UTC),
        email=body.email,
        display_name=body.display_name,
        status=body.status,
        roles=tuple(body.roles),
        attributes=body.attributes,
        with_password=password is not None,
    )
    outcome = await _handle(http, caller, why, user_id, command, key, password)
    return _written(outcome, 201)


@router.put(
    "/users/{id}",
    summary="Update a user (fields left out stay)",
    response_model=Written,
    dependencies=[Depends(json_body)],
    responses={200: {"headers": EVENT_HEADERS}, **REFUSALS},
)
async def put_user(
    http: HttpRequest,
    caller: Caller,
    user_id: Id,
    versions: Versions,
    key: Key,
    why: Reason,
    body: Annotated[ChangeUserBody, Body()],
) -> Response:
    """Appends UserUpdated, or nothing when nothing would change. `attributes`, when sent, replaces the whole object."""
    return await _change(http, caller, user_id, versions, key, why, body, merge=False)


@router.patch(
    "/users/{id}",
    summary="Update a user by JSON Merge Patch (RFC 7396)",
    response_model=Written,
    dependencies=[Depends(json_body)],
    responses={200: {"headers": EVENT_HEADERS}, **REFUSALS},
)
async def patch_user(
    http: HttpRequest,
    caller: Caller,
    user_id: Id,
    versions: Versions,
    key: Key,
    why: Reason,
    body: Annotated[ChangeUserBody, Body(media_type="application/merge-patch+json")],
) -> Response:
    """Appends UserUpdated, or nothing when nothing would change. `attributes` is merged member by member."""
    return await _change(http, caller, user_id, versions, key, why, body, merge=True)


@router.delete(
    "/users/{id}",
    summary="Delete a user",
    response_model=Deleted,
    responses={200: {"headers": EVENT_HEADERS}, **described(400, 401, 404, 409, 410, 412, 413, 422, 503)},
)
async def delete_user(
    http: HttpRequest, caller: Caller, user_id: Id, versions: Versions, key: Key, why: Reason
) -> Response:
    """Appends UserDeleted. The e-mail is free again; the id stays known as deleted (410)."""
    command = DeleteUser(event_id=EventId(new_id()), at=datetime.now(UTC), versions=versions)
    outcome = await _handle(http, caller, why, UserId(user_id), command, key, None)
    return _answer(
        outcome,
        200,
        {
            "message": "User deleted successfully",
            "id": str(outcome.user.id),
            "version": outcome.user.version,
            "deleted_at": value_to_wire(outcome.user.deleted_at),
        },
    )


async def _change(
    http: HttpRequest,
    caller: Actor,
    user_id: UUID,
    versions: frozenset[int] | None,
    key: str | None,
    why: str | None,
    body: ChangeUserBody,
    *,
    merge: bool,
) -> Response:
    password = _checked_password(http, body)
    new = {name: getattr(body, name) for name in body.model_fields_set - {"password"}}
    if "roles" in new:
        new["roles"] = tuple(body.roles or ())
    patch = None
    if "attributes" in new:
        sent = new.pop("attributes")
        if merge and sent is not None:
            patch = sent
        else:
            new["attributes"] = sent or {}
    command = ChangeUser(
        event_id=EventId(new_id()),
        at=datetime.now(UTC),
        new=new,
        attributes_patch=patch,
        with_password=password is not None,
        versions=versions,
    )
    return _written(await _handle(http, caller, why, UserId(user_id), command, key, password), 200)


async def _handle(
    http: HttpRequest,
    caller: Actor,
    why: str | None,
    user_id: UserId,
    command: Command,
    key: str | None,
    password: str | None,
) -> Outcome:
    handler: CommandHandler = http.app.state.handler
    correlation = current.get()
    if correlation is None:
        raise LookupError("no correlation: the request frame is missing")
    idempotency = None
    if key is not None:
        digester: Digester = http.app.state.digester
        # the body as it was sent: key order and white space are the caller's, and a retry repeats them
        request = b"\0".join((http.method.encode(), http.url.path.encode(), await http.body()))
        idempotency = Idempotency(caller=caller.subject, key=key, digest=digester.request(request))
    return await handler.handle(
        Request(
            user_id=user_id,
            command=command,
            metadata=Metadata.of(correlation, caller, why),
            idempotency=idempotency,
            password=password,
        )
    )


def _checked_password(http: HttpRequest, body: CreateUserBody | ChangeUserBody) -> str | None:
    if body.password is None:
        return None
    password = body.password.get_secret_value()
    passwords: Passwords = http.app.state.passwords
    passwords.check(password)
    return password


def _written(outcome: Outcome, status: int) -> Response:
    return _answer(outcome, status, record_of(outcome.user) | {"changed": sorted(outcome.changed)})


def _answer(outcome: Outcome, status: int, body: dict[str, Any]) -> Response:
    headers = {"ETag": f'"{outcome.user.version}"', "Event-Position": str(outcome.position)}
    if status == 201:  # noqa: PLR2004 - Created
        headers["Location"] = f"/users/{outcome.user.id}"
    if outcome.replayed:
        headers["Idempotency-Replayed"] = "true"
    return Response(orjson.dumps(body), status, headers, "application/json")
