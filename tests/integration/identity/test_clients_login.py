import base64
from typing import Any
from urllib.parse import quote_plus
from uuid import UUID, uuid4

import httpx
import jwt
import psycopg
import pytest

from runtime.ids import new_id
from tests.calls import codes, create
from tests.integration.identity.conftest import Visit
from tests.logins import CLIENT_SECRET, EMAIL, PASSWORD, log_in, make_client, oauth_error, token_from, until_void
from tests.tokens import ADMIN_ID

Owner = psycopg.Connection[dict[str, Any]]
GRANT = {"grant_type": "client_credentials"}


@pytest.fixture
def billing(owner: Owner) -> UUID:
    """A service that reads and writes users."""
    return make_client(owner, "users:read", "users:write")


def basic(client_id: object, secret: str = CLIENT_SECRET) -> dict[str, str]:
    """RFC 6749, section 2.3.1: both are form-encoded first."""
    pair = f"{quote_plus(str(client_id))}:{quote_plus(secret)}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


async def ask(client: httpx.AsyncClient, client_id: object, secret: str = CLIENT_SECRET, **more: str) -> httpx.Response:
    return await client.post("/login", data=GRANT | {"client_id": str(client_id), "client_secret": secret} | more)


def claims(answer: httpx.Response) -> dict[str, Any]:
    return jwt.decode(answer.json()["access_token"], options={"verify_signature": False})


async def test_a_service_gets_a_token_for_itself_and_nothing_to_refresh_it_with(visit: Visit, billing: UUID) -> None:
    answer = await ask(visit(), billing)
    assert answer.status_code == 200
    assert answer.json().keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("bearer", 600)
    assert answer.json()["scope"] == "users:read users:write"
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert claims(answer)["sub"] == claims(answer)["client_id"] == str(billing)


async def test_a_secret_comes_in_the_form_in_json_or_in_the_basic_header(visit: Visit, billing: UUID) -> None:
    client = visit()
    fields = GRANT | {"client_id": str(billing), "client_secret": CLIENT_SECRET}
    wrong = {"client_id": str(uuid4()), "client_secret": "wrong"}
    raw = base64.b64encode(quote_plus(f"{billing}").encode() + b":" + quote_plus(CLIENT_SECRET).encode()).decode()
    encoded = "".join(f"%{byte:02x}" for byte in str(billing).encode())
    in_full = base64.b64encode(f"{encoded}:{quote_plus(CLIENT_SECRET)}".encode()).decode()
    for answer in (
        await client.post("/login", data=fields),
        await client.post("/login", json=fields),
        await client.post("/login", data=GRANT, headers=basic(billing)),
        await client.post("/login", json=GRANT, headers=basic(billing)),
        await client.post("/login", data=GRANT, headers={"Authorization": f"bASIC   {raw} "}),
        await client.post("/login", data=GRANT, headers={"Authorization": f"Basic {in_full}"}),
        # the header is what counts
        await client.post("/login", data=GRANT | wrong, headers=basic(billing)),
    ):
        assert answer.status_code == 200, answer.text
        assert claims(answer)["sub"] == str(billing)


async def test_a_service_may_ask_for_less_than_it_could_have(visit: Visit, billing: UUID) -> None:
    answer = await ask(visit(), billing, scope="users:read users:erase")
    assert answer.json()["scope"] == claims(answer)["scope"] == "users:read"
    assert oauth_error(await ask(visit(), billing, scope="everything"), 400) == "invalid_scope"


async def test_a_service_that_may_not_log_in_is_told_nothing_of_why(
    visit: Visit, owner: Owner, billing: UUID, admin: httpx.AsyncClient
) -> None:
    disabled = make_client(owner, "users:read", name="disabled")
    owner.execute("UPDATE identity.clients SET disabled_at = now() WHERE id = %s", (disabled,))
    user = await create(admin, EMAIL, password=PASSWORD)
    seen: set[tuple[object, ...]] = set()
    for client_id, secret in (
        (billing, "wrong"),
        (billing, CLIENT_SECRET + " "),
        (billing, CLIENT_SECRET.upper()),
        (disabled, CLIENT_SECRET),
        (uuid4(), CLIENT_SECRET),
        (user["id"], PASSWORD),
        ("billing", CLIENT_SECRET),
        (f"{billing}0", CLIENT_SECRET),
        ("\0", "\0"),
        ("é🔑", "é🔑"),
    ):
        answer = await visit().post(
            "/login",
            data=GRANT | {"client_id": str(client_id), "client_secret": secret},
            headers={"X-Request-Id": "request-1"},
        )
        assert oauth_error(answer, 401) == "invalid_client"
        seen.add((answer.content, tuple(answer.headers.raw)))
        answer = await visit().post("/login", data=GRANT, headers=basic(client_id, secret))
        assert oauth_error(answer, 401) == "invalid_client"
        assert answer.headers["www-authenticate"] == 'Basic realm="muster"'
    assert len(seen) == 1
    assert owner.execute("SELECT count(*) FROM identity.sessions").fetchall() == [{"count": 0}]


@pytest.mark.parametrize(
    ("fields", "authorization"),
    [
        ({}, None),
        ({"client_id": "x"}, None),
        ({"client_secret": "x"}, None),
        ({}, "Basic !"),
        ({}, "Basic YQ"),
        ({}, "Basic /w=="),
        ({}, "Basic schl\xfcssel"),
        ({}, "Bearer x"),
    ],
)
async def test_a_service_must_name_itself(visit: Visit, fields: dict[str, str], authorization: str | None) -> None:
    headers = [] if authorization is None else [(b"Authorization", authorization.encode("latin-1"))]
    answer = await visit().post("/login", data=GRANT | fields, headers=headers)
    assert oauth_error(answer, 400) == "invalid_request"


async def test_an_empty_basic_header_names_nobody(visit: Visit) -> None:
    for empty in ("Basic", "Basic ", "Basic Og==", "Basic Og"):
        answer = await visit().post("/login", data=GRANT, headers={"Authorization": empty})
        assert answer.status_code in {400, 401}


async def test_cookies_are_not_for_services(visit: Visit, billing: UUID) -> None:
    headers = {"Origin": "https://muster", **basic(billing)}
    answer = await visit().post("/login?cookies=true", data=GRANT, headers=headers)
    assert oauth_error(answer, 400) == "invalid_request"
    assert "set-cookie" not in answer.headers


async def test_what_a_service_writes_names_it(
    visit: Visit, owner: Owner, billing: UUID, admin: httpx.AsyncClient
) -> None:
    service = visit(token=(await ask(visit(), billing)).json()["access_token"])
    user = await create(service, EMAIL, password=PASSWORD)
    assert (await service.patch(f"/users/{user['id']}", json={"display_name": "Ada"})).status_code == 200
    ada = visit(token=await token_from(visit()))
    assert (await ada.patch("/users/me", json={"display_name": "Countess"})).status_code == 200
    await admin.delete(f"/users/{user['id']}")
    rows = owner.execute("SELECT metadata FROM log.events ORDER BY position").fetchall()
    actors = [row["metadata"]["actor"] for row in rows]
    sessions = [actor.pop("session") for actor in actors]
    assert sessions[0] == sessions[1]
    assert len(set(sessions)) == 3
    assert actors == [
        {"subject": str(billing), "kind": "service"},
        {"subject": str(billing), "kind": "service"},
        {"subject": user["id"], "kind": "user"},
        {"subject": str(ADMIN_ID), "kind": "user"},
    ]


async def test_a_service_has_no_record_of_its_own(visit: Visit, owner: Owner) -> None:
    client_id = make_client(owner, "self", "users:read", "users:write")
    answer = await ask(visit(), client_id, scope="self users:write")
    assert answer.json()["scope"] == "users:write"
    service = visit(token=(await ask(visit(), client_id)).json()["access_token"])
    for method in ("PUT", "PATCH"):
        assert codes(await service.request(method, "/users/me", json={}), 403) == ["insufficient_scope"]


async def test_a_service_cannot_do_what_its_scopes_do_not_say(
    visit: Visit, owner: Owner, admin: httpx.AsyncClient
) -> None:
    client_id = make_client(owner, "users:read", "fly")
    answer = await ask(visit(), client_id)
    assert answer.json()["scope"] == "users:read"
    service = visit(token=answer.json()["access_token"])
    assert codes(await service.post("/users", json={"email": EMAIL}), 403) == ["insufficient_scope"]
    # nor make somebody who may
    writer = visit(token=(await ask(visit(), make_client(owner, "users:write", name="w"))).json()["access_token"])
    for roles in (["admin"], ["auditor"], ["operator", "user"]):
        answer = await writer.post("/users", json={"email": EMAIL, "roles": roles})
        assert codes(answer, 403) == ["outranked"]
    assert (await writer.post("/users", json={"email": EMAIL, "roles": ["user", "painter"]})).status_code == 201
    root = await create(admin, "root@example.com", roles=["admin"])
    for body in ({"password": PASSWORD}, {"display_name": "x"}, {"roles": ["user"]}, {"status": "disabled"}):
        assert codes(await writer.patch(f"/users/{root['id']}", json=body), 403) == ["outranked"]


async def test_a_user_cannot_pass_for_a_service(visit: Visit, admin: httpx.AsyncClient) -> None:
    user = await create(admin, EMAIL, password=PASSWORD)
    assert oauth_error(await ask(visit(), user["id"], PASSWORD), 401) == "invalid_client"
    answer = await log_in(visit(), client_id=user["id"], client_secret=PASSWORD)
    assert claims(answer)["client_id"] == "muster"


async def test_a_service_ends_its_own_session(visit: Visit, billing: UUID) -> None:
    service = visit(token=(await ask(visit(), billing)).json()["access_token"])
    assert [shown["current"] for shown in (await service.get("/sessions")).json()["sessions"]] == [True]
    assert (await service.post("/logout")).status_code == 204
    await until_void(service)
    assert (await ask(visit(), billing)).status_code == 200


async def test_wrong_secrets_make_nobody_wait(visit: Visit, owner: Owner, billing: UUID) -> None:
    """They have 256 random bits: whoever guesses gains nothing, and whoever deploys a wrong one is not locked out."""
    client = visit()
    for _ in range(30):
        assert (await ask(client, billing, str(new_id()))).status_code == 401
    assert (await ask(client, billing)).status_code == 200
    assert owner.execute("SELECT count(*) FROM identity.guesses").fetchall() == [{"count": 0}]
