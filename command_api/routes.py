from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Body, Depends, Path, Response
from fastapi import Request as HttpRequest

from command_api.bodies import ChangeMeBody, ChangeUserBody, CreateUserBody, Deleted, Written
from command_api.creating import creation_of
from command_api.decide import ChangeUser, Command, DeleteUser
from command_api.handler import CommandHandler, Outcome, Request
from command_api.preconditions import accepted_versions, idempotency_key, idempotency_of, reason
from events.record import record_of
from events.recording import Metadata
from events.user import EventId, UserId
from events.wire import value_to_wire
from identity.access_tokens import Caller
from identity.app_state import peer_of
from identity.caller import needs
from identity.logins import Logins
from identity.passwords import Passwords
from identity.roles import Scope
from identity.security_log import record
from runtime.correlation import current
from runtime.direct import direct
from runtime.ids import new_id
from runtime.problems import Fault, Problem, described
from runtime.requests import StrictJsonRoute, refuse_malformed

router = APIRouter(tags=["users"], route_class=StrictJsonRoute)

MayWrite = Annotated[Caller, needs(Scope.USERS_WRITE)]
Self = Annotated[Caller, needs(Scope.SELF)]

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
SECRETS = frozenset({"password", "password_hash", "current_password"})
REFUSALS = described(400, 401, 403, 404, 409, 410, 412, 413, 415, 422, 503)


async def json_body(request: HttpRequest) -> None:
    """Refuse a body that does not say it is JSON, rather than guess, and one that says so and is not."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    accepted = ("application/json", "application/merge-patch+json")
    if kind not in accepted[: 2 if request.method == "PATCH" else 1]:
        headers = {"Accept-Patch": ", ".join(accepted)} if request.method == "PATCH" else {"Accept": accepted[0]}
        raise Problem(415, "not_json", "Send the body as JSON: Content-Type: application/json", headers=headers)
    await refuse_malformed(request)


# who is calling is asked before anything else: a stranger learns nothing of what is wrong with the request
WRITING = [needs(Scope.USERS_WRITE), Depends(json_body)]
WRITING_ONESELF = [needs(Scope.SELF), Depends(json_body)]


@router.post(
    "/users",
    status_code=201,
    summary="Create a user",
    response_model=Written,
    dependencies=WRITING,
    responses={201: {"headers": EVENT_HEADERS}, **described(400, 401, 403, 409, 413, 415, 422, 503)},
)
@direct
async def create_user(
    http: HttpRequest, caller: MayWrite, key: Key, why: Reason, body: Annotated[CreateUserBody, Body()]
) -> Response:
    """Appends UserCreated. 409: the e-mail is another living user's. 403: the roles may do more than the caller."""
    secret = _secret(http, body)
    user_id = UserId(new_id())
    command = creation_of(body, user_id)
    outcome = await _handle(http, caller, why, user_id, command, key, secret)
    return _written(outcome, 201)


@router.put(
    "/users/me",
    summary="Update yourself (fields left out stay)",
    response_model=Written,
    dependencies=WRITING_ONESELF,
    responses={200: {"headers": EVENT_HEADERS}, **REFUSALS, **described(429)},
)
async def put_me(
    http: HttpRequest, caller: Self, versions: Versions, key: Key, why: Reason, body: Annotated[ChangeMeBody, Body()]
) -> Response:
    """Never one's roles or status. A new password ends all of one's sessions: log in again with it."""
    return await _change_me(http, caller, versions, key, why, body, merge=False)


@router.patch(
    "/users/me",
    summary="Update yourself by JSON Merge Patch (RFC 7396)",
    response_model=Written,
    dependencies=WRITING_ONESELF,
    responses={200: {"headers": EVENT_HEADERS}, **REFUSALS, **described(429)},
)
async def patch_me(
    http: HttpRequest,
    caller: Self,
    versions: Versions,
    key: Key,
    why: Reason,
    body: Annotated[ChangeMeBody, Body(media_type="application/merge-patch+json")],
) -> Response:
    """As PUT; `attributes` is merged member by member."""
    return await _change_me(http, caller, versions, key, why, body, merge=True)


@router.put(
    "/users/{id}",
    summary="Update a user (fields left out stay)",
    response_model=Written,
    dependencies=WRITING,
    responses={200: {"headers": EVENT_HEADERS}, **REFUSALS},
)
@direct
async def put_user(
    http: HttpRequest,
    caller: MayWrite,
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
    dependencies=WRITING,
    responses={200: {"headers": EVENT_HEADERS}, **REFUSALS},
)
@direct
async def patch_user(
    http: HttpRequest,
    caller: MayWrite,
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
    dependencies=[needs(Scope.USERS_WRITE)],
    responses={200: {"headers": EVENT_HEADERS}, **described(400, 401, 403, 404, 409, 410, 412, 413, 422, 503)},
)
@direct
async def delete_user(
    http: HttpRequest, caller: MayWrite, user_id: Id, versions: Versions, key: Key, why: Reason
) -> Response:
    """Appends UserDeleted. The e-mail is free again; the id stays known as deleted (410).

    Auditors can read the former record until it is erased: ERASE_DELETED_AFTER seconds later, or when it is asked for.
    """
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Secret:
    """A new password, or the hash of one."""

    password: str | None = None
    password_hash: str | None = None


async def _change_me(
    http: HttpRequest,
    caller: Caller,
    versions: frozenset[int] | None,
    key: str | None,
    why: str | None,
    body: ChangeMeBody,
    *,
    merge: bool,
) -> Response:
    forbidden = sorted(body.model_fields_set & {"roles", "status"})
    if forbidden:
        record("access.not_yours", subject=caller.subject, session=caller.session)
        faults = [Fault(detail="is not yours to change", code="not_yours", pointer=f"#/{name}") for name in forbidden]
        raise Problem(403, "not_yours", "Roles and status are for those who may write users.", faults=faults)
    user_id = UserId(UUID(caller.subject))
    secret, proof = None, None
    if body.password is not None and body.current_password is not None:
        passwords: Passwords = http.app.state.passwords
        secret = _Secret(password=body.password.get_secret_value())
        passwords.check(body.password.get_secret_value())
        logins: Logins = http.app.state.logins
        current_password = body.current_password.get_secret_value()
        proof = partial(logins.check_own_password, user_id, current_password, peer_of(http))
    command = _change_of(body, versions, with_password=secret is not None, merge=merge)
    return _written(await _handle(http, caller, why, user_id, command, key, secret, oneself=True, proof=proof), 200)


async def _change(
    http: HttpRequest,
    caller: Caller,
    user_id: UUID,
    versions: frozenset[int] | None,
    key: str | None,
    why: str | None,
    body: ChangeUserBody,
    *,
    merge: bool,
) -> Response:
    secret = _secret(http, body)
    if secret is not None and caller.kind == "user" and str(user_id) == caller.subject:
        record("access.own_password", subject=caller.subject, session=caller.session)
        pointer = "#/password" if secret.password is not None else "#/password_hash"
        fault = Fault(detail="needs the current password", code="own_password", pointer=pointer)
        detail = "Change your own password at /users/me, with the current one."
        raise Problem(403, "own_password", detail, faults=[fault])
    command = _change_of(body, versions, with_password=secret is not None, merge=merge)
    return _written(await _handle(http, caller, why, UserId(user_id), command, key, secret), 200)


def _change_of(
    body: ChangeUserBody | ChangeMeBody, versions: frozenset[int] | None, *, with_password: bool, merge: bool
) -> ChangeUser:
    new = {name: getattr(body, name) for name in body.model_fields_set - SECRETS}
    if "roles" in new:
        new["roles"] = tuple(new["roles"] or ())
    patch = None
    if "attributes" in new:
        sent = new.pop("attributes")
        if merge and sent is not None:
            patch = sent
        else:
            new["attributes"] = sent or {}
    return ChangeUser(
        event_id=EventId(new_id()),
        at=datetime.now(UTC),
        new=new,
        attributes_patch=patch,
        with_password=with_password,
        versions=versions,
    )


async def _handle(
    http: HttpRequest,
    caller: Caller,
    why: str | None,
    user_id: UserId,
    command: Command,
    key: str | None,
    secret: _Secret | None,
    *,
    oneself: bool = False,
    proof: Callable[[], Awaitable[None]] | None = None,
) -> Outcome:
    handler: CommandHandler = http.app.state.handler
    correlation = current.get()
    if correlation is None:
        raise LookupError("no correlation: the request frame is missing")
    return await handler.handle(
        Request(
            user_id=user_id,
            command=command,
            metadata=Metadata.of(correlation, caller.actor, why),
            idempotency=await idempotency_of(http, caller, key),
            authority=None if oneself else caller.scopes,
            password=secret.password if secret is not None else None,
            password_hash=secret.password_hash if secret is not None else None,
            proof=proof,
        )
    )


def _secret(http: HttpRequest, body: CreateUserBody | ChangeUserBody) -> _Secret | None:
    passwords: Passwords = http.app.state.passwords
    if body.password_hash is not None:
        stored = body.password_hash.get_secret_value()
        passwords.check_imported(stored)
        return _Secret(password_hash=stored)
    if body.password is None:
        return None
    password = body.password.get_secret_value()
    # what needs no look at the user is refused before one; the handler knows their e-mail address
    passwords.check(password)
    return _Secret(password=password)


def _written(outcome: Outcome, status: int) -> Response:
    return _answer(outcome, status, record_of(outcome.user) | {"changed": sorted(outcome.changed)})


def _answer(outcome: Outcome, status: int, body: dict[str, Any]) -> Response:
    headers = {"ETag": f'"{outcome.user.version}"', "Event-Position": str(outcome.position)}
    if status == 201:  # noqa: PLR2004 - Created
        headers["Location"] = f"/users/{outcome.user.id}"
    if outcome.replayed:
        headers["Idempotency-Replayed"] = "true"
    return Response(orjson.dumps(body), status, headers, "application/json")
