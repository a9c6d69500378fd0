from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import count, product
from typing import Any, Final
from uuid import UUID

import bcrypt
import httpx
import orjson
import psycopg
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from pydantic import BaseModel
from starlette.routing import Mount

from command_api.app import create_app as create_command_app
from projector.rows import row_of
from query_api.app import create_app as create_query_app
from runtime.ids import new_id
from tests.apps import client_of
from tests.authority import NEEDS, OTHERS, OWN, OWNERS, PUBLIC, PUBLIC_OF_BOTH, SCOPES, Act, verdict
from tests.calls import codes, create
from tests.databases import MakeSettings
from tests.histories import History
from tests.logins import log_in, make_client
from tests.signed_trees import grow_and_sign
from tests.tokens import authorized

Owner = psycopg.Connection[dict[str, Any]]
Record = dict[str, Any]

PASSWORD: Final = "sesame-opens-the-rock"
HASH: Final = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
# the roles that a request may give
GIVEN: Final = ("painter", "user", "auditor", "operator", "admin")
# what a route does not answer without
PARAMETERS: Final[dict[str, dict[str, str]]] = {
    "GET /users/{id}/diff": {"from": "0", "to": "1"},
    "GET /proofs/consistency": {"from": "0"},
}
WRITTEN: Final = """
SELECT h.position, r.number,
    (SELECT json_agg(c ORDER BY c.user_id) FROM identity.credentials c) AS credentials,
    (SELECT json_agg(json_build_array(s.id, s.ended_at) ORDER BY s.id) FROM identity.sessions s) AS sessions,
    (SELECT count(*) FROM log.events) AS events, (SELECT count(*) FROM log.commands) AS commands
FROM log.head h, identity.revocation_head r
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody who is logged in, and their record if they are a user."""

    id: UUID
    token: str
    session: UUID

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    caller: Account | None
    owners: dict[str, Account]


class Stage:
    """Both APIs on one database, whose read model has every user as they were made."""

    def __init__(self, owner: Owner, apps: dict[str, FastAPI], clients: dict[str, httpx.AsyncClient]) -> None:
        self.owner = owner
        self.apps = apps
        self.clients = clients
        self.number = count(1)

    def written(self) -> list[Record]:
        return self.owner.execute(WRITTEN).fetchall()

    def routes(self, api: str) -> Iterator[tuple[str, RouteContext]]:
        for route in iter_route_contexts(self.apps[api].routes):
            for method in sorted(route.methods or ()):
                if method != "HEAD":
                    yield f"{method} {str(route.path).replace(':path}', '}')}", route

    async def cast(self, caller: str) -> Cast:
        owners = {owner: await self.user([role]) for owner, role in OWNERS.items() if role}
        if caller == "stranger":
            return Cast(caller=None, owners=owners)
        if caller.startswith("service"):
            account = await self.service(caller.removeprefix("service "))
        else:
            account = await self.user([] if caller == "without a role" else [caller])
        return Cast(caller=account, owners={**owners, "own": account})

    async def user(self, roles: list[str]) -> Account:
        email = f"user{next(self.number)}@example.com"
        commands = self.clients["command"]
        commands.headers.update(authorized())
        record = await create(commands, email, password=PASSWORD, roles=roles)
        del commands.headers["authorization"]
        rows = orjson.dumps([row_of({**record, "deleted_at": None}, 1)]).decode()
        self.owner.execute("SELECT read_model.put('read_model.users', %s, NULL)", (rows,))
        return self.account(UUID(record["id"]), await log_in(commands, email, PASSWORD))

    async def service(self, scope: str) -> Account:
        name = f"service {next(self.number)}"
        client_id = make_client(self.owner, scope, name=name, secret=name)
        form = {"grant_type": "client_credentials", "client_id": str(client_id), "client_secret": name}
        return self.account(client_id, await self.clients["command"].post("/login", data=form))

    def account(self, subject: UUID, login: httpx.Response) -> Account:
        assert login.status_code == 200, login.text
        newest = "SELECT id FROM identity.sessions WHERE subject = %s ORDER BY created_at DESC LIMIT 1"
        session = self.owner.execute(newest, (subject,)).fetchall()[0]["id"]
        return Account(id=subject, token=login.json()["access_token"], session=session)

    async def perform(self, api: str, act: Act, cast: Cast) -> httpx.Response:
        method, path = act.route.split(" ")
        # a stranger owns nothing, and may think of any id
        owner = cast.owners.get(act.owner)
        about = Account(id=new_id(), token="", session=new_id()) if owner is None else owner
        named = about.session if "/sessions/" in path else about.id
        parameters = PARAMETERS.get(act.route, {}) | (
            {"user_id": str(about.id)} if act.route == "GET /sessions" else {}
        )
        if act.route == "POST /users/import":
            line = orjson.dumps(self.body(Act(route="POST /users", needs=act.needs)))
            headers = {
                "Content-Type": "application/x-ndjson",
                **(cast.caller.headers if cast.caller is not None else {}),
            }
            return await self.clients[api].post(path, content=line, headers=headers)
        return await self.clients[api].request(
            method,
            path.format(
                id=named,
                position=1,
                path="000.p/1" if "entries" in path else "0/000.p/1",
                file="UserUpdated.v1.json",
            ),
            params=parameters,
            json=self.body(act) if act.field is not None else None,
            headers=cast.caller.headers if cast.caller is not None else {},
        )

    def body(self, act: Act) -> Record:
        number = next(self.number)
        values: Record = {
            "email": f"new{number}@example.com",
            "display_name": f"Name {number}",
            "attributes": {"number": number},
            "password": f"{PASSWORD}-{number}",
            "password_hash": HASH,
            "current_password": PASSWORD,
            "status": "disabled",
            # never what somebody has already
            "roles": [act.gives, "gardener"],
        }
        sent = {} if act.field is None else {act.field: values[act.field]}
        if act.route.endswith("/users/me") and act.field == "password":
            sent["current_password"] = PASSWORD
        return {"email": values["email"], **sent} if act.route == "POST /users" else sent


@pytest.fixture
async def stage(make_settings: MakeSettings, owner: Owner, history: History) -> AsyncIterator[Stage]:
    # what may be proved
    history.create([1_000_000])
    await grow_and_sign(make_settings("muster_command"))
    apps = {
        "command": create_command_app(make_settings("muster_command")),
        "query": create_query_app(make_settings("muster_query")),
    }
    async with client_of(apps["command"]) as commands, client_of(apps["query"]) as queries:
        for client in (commands, queries):
            del client.headers["authorization"]
        yield Stage(owner, apps, {"command": commands, "query": queries})


def bodies_of(route: RouteContext) -> list[type[BaseModel]]:
    if not isinstance(route.original_route, APIRoute):
        return []
    return [parameter.field_info.annotation for parameter in route.dependant.body_params]


def acts(api: str, route: str, *, with_body: bool) -> Iterator[Act]:
    """Every act that a route allows to ask for."""
    needs = PUBLIC if route in PUBLIC_OF_BOTH else NEEDS[api][route]
    owned = "{id}" in route or route == "GET /sessions"
    fields: list[tuple[str | None, str | None]] = [] if with_body else [(None, None)]
    if with_body:
        fields += [(field, None) for field in sorted((OWN | OTHERS) - {"roles"})]
        fields += [("roles", role) for role in GIVEN]
    for owner, (field, gives) in product(OWNERS if owned else ["own"], fields):
        yield Act(route=route, needs=needs, owner=owner, field=field, gives=gives)


@pytest.mark.parametrize("caller", SCOPES)
async def test_everybody_may_do_what_the_table_says_and_nothing_else(stage: Stage, caller: str) -> None:
    wrong: list[str] = []
    cast, performed = await stage.cast(caller), 0
    for api in stage.apps:
        for name, route in stage.routes(api):
            for act in acts(api, name, with_body=bool(bodies_of(route))):
                before = stage.written()
                answer = await stage.perform(api, act, cast)
                after = stage.written()
                if (complaint := wrong_with(answer, caller, act, changed=before != after)) is not None:
                    wrong.append(f"{act}: {complaint}")
                if before != after:
                    cast = await stage.cast(caller)
                performed += 1
    assert wrong == []
    assert performed > 100


def wrong_with(answer: httpx.Response, caller: str, act: Act, *, changed: bool) -> str | None:
    expected = verdict(caller, act)
    if expected is not None:
        told = answer.status_code, answer.json()["errors"][0]["code"] if answer.is_error else answer.text
        if told != expected:
            return f"expected {expected}, was told {told}"
        return "was refused, and changed something" if changed else None
    if act.needs == PUBLIC:
        # /login and /refresh have nothing to go by here
        fine = answer.status_code == (400 if act.route in {"POST /login", "POST /refresh"} else 200)
        return None if fine and not changed else f"was answered {answer.status_code} {answer.text}"
    if not answer.is_success:
        return f"should be allowed, was answered {answer.status_code} {answer.text}"
    silent = act.route.startswith("GET ") or act.field == "current_password"
    return None if changed is not silent else f"was allowed, and changed {'something' if changed else 'nothing'}"


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_whoever_may_not_write_a_record_is_not_shown_it(stage: Stage, method: str) -> None:
    cast = await stage.cast("service users:write")
    assert cast.caller is not None
    boss = cast.owners["an administrator's"].id
    answer = await stage.clients["command"].request(method, f"/users/{boss}", json={}, headers=cast.caller.headers)
    assert codes(answer, 403) == ["outranked"]


def test_every_route_is_in_the_table(stage: Stage) -> None:
    for api, needs in NEEDS.items():
        assert {name for name, _ in stage.routes(api)} == needs.keys() | PUBLIC_OF_BOTH, api


def test_every_field_is_in_the_table(stage: Stage) -> None:
    found: set[str] = set()
    for _, route in stage.routes("command"):
        for body in bodies_of(route):
            fields = set(body.model_fields)
            assert fields >= {"email", "display_name", "roles"}
            found |= fields
    assert found == OWN | OTHERS


def test_only_the_documentation_is_mounted(stage: Stage) -> None:
    for app in stage.apps.values():
        mounts = [route.path for route in iter_route_contexts(app.routes) if isinstance(route.original_route, Mount)]
        assert mounts == ["/static-offline-docs"]
