import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import psycopg
import pytest

from command_api.app import create_app
from tests.calls import codes, create
from tests.databases import MakeSettings
from tests.integration.identity.conftest import Visit
from tests.logins import EMAIL, PASSWORD, log_in, oauth_error, token_from, visitor

Owner = psycopg.Connection[dict[str, Any]]
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
ERRORS_400 = {"invalid_request", "invalid_scope", "unsupported_grant_type"}
SURE = {"username": EMAIL, "password": PASSWORD}
# otherwise every answer has ids of its own
OWN = {"X-Request-Id": "request-1"}


@pytest.fixture
async def ada(admin: httpx.AsyncClient) -> dict[str, Any]:
    return await create(admin, EMAIL, password=PASSWORD, roles=["auditor", "painter", "user"])


async def post(
    client: httpx.AsyncClient, body: bytes | str, kind: str | None = FORM, path: str = "/login"
) -> httpx.Response:
    return await client.post(path, content=body, headers={} if kind is None else {"Content-Type": kind})


async def test_a_login_answers_tokens_that_nobody_keeps(visit: Visit, ada: dict[str, Any]) -> None:
    answer = await log_in(visit())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert "set-cookie" not in answer.headers
    body = answer.json()
    assert body.keys() == {"access_token", "refresh_token", "device_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("bearer", 600, "events:read self users:read")
    claims = jwt.decode(body["access_token"], options={"verify_signature": False})
    assert claims["sub"] == ada["id"]
    assert claims["scope"] == body["scope"]
    assert claims["client_id"] == "muster"
    assert claims["exp"] - claims["iat"] == 600
    assert abs(claims["iat"] - time.time()) < 30
    assert body["refresh_token"].startswith("mrt_")


@pytest.mark.usefixtures("ada")
async def test_a_form_and_json_are_taken_alike(visit: Visit) -> None:
    client = visit()
    answers = [
        await client.post("/login", data=SURE),
        await client.post("/login", data=SURE | {"grant_type": "password"}),
        await client.post("/login", json=SURE),
        await client.post("/login", json=SURE | {"grant_type": "password", "scope": None, "more": [1]}),
        await post(client, f"username={EMAIL}&password={PASSWORD}", f"{FORM};charset=UTF-8"),
        # a parameter without a value is one that was left out
        await post(client, f"username={EMAIL}&password={PASSWORD}&scope=&grant_type=&client_id=", FORM.upper()),
        await client.post("/login", json=SURE | {"grant_type": "", "scope": ""}),
    ]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert len({tuple(answer.json()) for answer in answers}) == 1
    assert {answer.json()["scope"] for answer in answers} == {"events:read self users:read"}


@pytest.mark.parametrize("stored", ["Zoë.Straße@Bücher.example", "zoe\u0308.strasse@xn--bcher-kva.example"])
async def test_an_address_is_known_in_every_spelling(visit: Visit, admin: httpx.AsyncClient, stored: str) -> None:
    await create(admin, stored, password=PASSWORD)
    for spelling in (
        stored,
        "ZOË.STRASSE@BÜCHER.EXAMPLE",
        "  zoë.straße@bücher.example ",
        "zoe\u0308.straße@XN--BCHER-KVA.example",
    ):
        assert (await log_in(visit(), spelling)).status_code == 200
    for other in ("zoe.strasse@bücher.example", "zoë.straße@bucher.example", "zoë.straße@bücher.example."):
        assert oauth_error(await log_in(visit(), other), 401) == "invalid_grant"


@pytest.mark.parametrize(
    "password", ["schlüssel: für & zoë=100%+1", "  spaces around  ", "🔑🔑🔑🔑🔑🔑🔑🔑", "nul\0inside", "x" * 1024]
)
async def test_a_password_arrives_as_it_was_typed(visit: Visit, admin: httpx.AsyncClient, password: str) -> None:
    await create(admin, password=password)
    client = visit()
    assert (await log_in(client, password=password)).status_code == 200
    assert (await client.post("/login", json={"username": EMAIL, "password": password})).status_code == 200
    assert (await log_in(client, password=password[:-1])).status_code == 401
    assert (await log_in(client, password=password + "x")).status_code == 401


async def test_who_may_not_log_in_is_told_nothing_of_why(visit: Visit, admin: httpx.AsyncClient) -> None:
    for name in ("known", "disabled", "deleted"):
        user = await create(admin, f"{name}@example.com", password=PASSWORD)
        if name == "disabled":
            await admin.patch(f"/users/{user['id']}", json={"status": "disabled"})
        if name == "deleted":
            await admin.delete(f"/users/{user['id']}")
    await create(admin, "passwordless@example.com")
    await create(admin, "born-disabled@example.com", password=PASSWORD, status="disabled")
    tries = [
        ("known@example.com", "wrong-password"),
        ("known@example.com", PASSWORD + "x" * 2000),
        ("unknown@example.com", PASSWORD),
        ("disabled@example.com", PASSWORD),
        ("disabled@example.com", "wrong-password"),
        ("born-disabled@example.com", PASSWORD),
        ("deleted@example.com", PASSWORD),
        ("passwordless@example.com", PASSWORD),
        ("no address at all", PASSWORD),
        ("x" * 400 + "@example.com", PASSWORD),
        ("@", PASSWORD),
        ("nul\0@example.com", PASSWORD),
    ]
    answers: list[httpx.Response] = []
    for number, (email, password) in enumerate(tries):
        # who failed from here before is told how often: each comes from elsewhere
        answer = await visit(f"10.0.{number}.1").post(
            "/login", data={"username": email, "password": password}, headers=OWN
        )
        assert oauth_error(answer, 401) == "invalid_grant"
        assert answer.json()["detail"] == "Invalid username or password"
        assert answer.headers["www-authenticate"] == 'Bearer realm="muster"'
        answers.append(answer)
    # the order, names and values of all headers
    assert len({(answer.content, tuple(answer.headers.raw)) for answer in answers}) == 1


async def test_an_account_is_open_again_when_it_is_active_again(visit: Visit, admin: httpx.AsyncClient) -> None:
    user = await create(admin, password=PASSWORD, status="disabled")
    assert (await log_in(visit())).status_code == 401
    await admin.patch(f"/users/{user['id']}", json={"status": "active"})
    assert (await log_in(visit())).status_code == 200


async def test_an_address_that_was_given_up_is_no_name_any_more(visit: Visit, admin: httpx.AsyncClient) -> None:
    user = await create(admin, "old@example.com", password=PASSWORD)
    await admin.patch(f"/users/{user['id']}", json={"email": EMAIL})
    assert (await log_in(visit(), "old@example.com")).status_code == 401
    assert (await log_in(visit())).status_code == 200


MALFORMED: list[tuple[bytes, str | None, int]] = [
    (b"", None, 400),
    (b"", FORM, 400),
    (b"username=ada@example.com", FORM, 400),
    (b"password=sesame-opens-the-rock", FORM, 400),
    (b"username=&password=", FORM, 400),
    (b"username=a&username=b&password=c", FORM, 400),
    (b"username=a&password=c&password=c", FORM, 400),
    (b"grant_type=password&grant_type=client_credentials&username=a&password=c", FORM, 400),
    (b"x=1&x=2&username=a&password=c", FORM, 400),
    (b"&".join(b"p%d=1" % number for number in range(33)), FORM, 400),
    (b"username", FORM, 400),
    (b"&&&", FORM, 400),
    (b"username=\xff&password=c", FORM, 400),
    (b"username=%ff&password=c", FORM, 400),
    # lone surrogates
    (b"username=%ED%A0%80&password=c", FORM, 400),
    (b"username=a&password=%ED%BF%BF", FORM, 400),
    (b'{"username": "\\ud800", "password": "c"}', JSON, 400),
    (b"username=%F4%90%80%80&password=c", FORM, 400),
    (b"username=a%&password=%zz", FORM, 401),
    (b"username=a%00b&password=c%00d", FORM, 401),
    (b'{"username": "a\\u0000b", "password": "c\\u0000d"}', JSON, 401),
    (b"username=a&password=c&grant_type=%00", FORM, 400),
    (b"username=a&password=c&scope=%00", FORM, 400),
    (b"grant_type=client_credentials&client_id=%00&client_secret=%00", FORM, 401),
    (b"{", JSON, 400),
    (b"[]", JSON, 400),
    (b"null", JSON, 400),
    (b'"username"', JSON, 400),
    (b"NaN", JSON, 400),
    (b'{"username": 1, "password": "c"}', JSON, 400),
    (b'{"username": ["a"], "password": "c"}', JSON, 400),
    (b'{"username": "a", "password": {"c": 1}}', JSON, 400),
    (b'{"username": "a", "password": true}', JSON, 400),
    (b'{"username": "a", "password": "c", "scope": ["self"]}', JSON, 400),
    (b'{"username": "a", "password": "c", "grant_type": 0}', JSON, 400),
    (b'{"username": "\xff", "password": "c"}', JSON, 400),
    (b'{"self": 1, "model": 2, "__class__": "x"}', JSON, 400),
    (b"[" * 60_000, JSON, 400),
    (b'{"a":' * 10_000, JSON, 400),
    (b"username=" + b"x" * 60_000 + b"&password=c", FORM, 401),
    (b"username=a&password=" + b"x" * 60_000, FORM, 401),
    (b"username=a&password=c&scope=" + b"x " * 30_000, FORM, 400),
    (b"username=a&password=c&scope=" + b"self " * 12_000, FORM, 401),
    (b"username=a&password=c", None, 415),
    (b"username=a&password=c", "", 415),
    (b"username=a&password=c", "text/plain", 415),
    (b"username=a&password=c", "application/xml", 415),
    (b"username=a&password=c", "application/x-www-form-urlencoded, application/json", 415),
    (b'{"username": "a", "password": "c"}', "application/problem+json", 415),
    (
        b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\na\r\n--x--',
        "multipart/form-data; boundary=x",
        415,
    ),
]


async def test_no_body_of_a_login_does_harm(visit: Visit) -> None:
    codes_of = {400: ERRORS_400, 401: {"invalid_grant", "invalid_client"}, 415: {"invalid_request"}}
    for number, (body, kind, status) in enumerate(MALFORMED):
        # who failed from here before would have to wait: each comes from elsewhere
        answer = await post(visit(f"10.0.{number}.1"), body, kind)
        assert oauth_error(answer, status) in codes_of[status], body
        assert status != 415 or answer.headers["accept"] == f"{FORM}, {JSON}"


async def test_no_body_of_a_refresh_does_harm(visit: Visit) -> None:
    for body, kind, status in MALFORMED:
        answer = await post(visit(), body, kind, "/refresh")
        # what is wrong with a login's own parameters alone is no matter here
        error = oauth_error(answer, 415 if status == 415 else 400)
        assert error in {"invalid_request", "unsupported_grant_type"}, body


async def test_no_body_of_a_logout_does_harm(visit: Visit) -> None:
    for body, kind, status in MALFORMED:
        answer = await post(visit(), body, kind, "/logout")
        assert answer.status_code == 415 if status == 415 else answer.status_code in {400, 401}, body
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/login", "/refresh", "/logout"])
async def test_a_body_without_end_is_cut_off(visit: Visit, path: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(1024):
            yield b"x" * 1024

    whole = await visit().post(path, content=b"x" * 2**20, headers={"Content-Type": FORM})
    in_parts = await visit().post(path, content=chunks(), headers={"Content-Type": FORM})
    for answer in (whole, in_parts):
        assert codes(answer, 413) == ["body_too_large"]


async def test_what_cannot_be_a_try_is_not_counted_as_one(visit: Visit, owner: Owner) -> None:
    client = visit()
    for body in (b"", b"username=a", b"username=a&password=c&scope=fly", b"username=a&password=c&grant_type=magic"):
        assert (await post(client, body)).status_code == 400
    assert owner.execute("SELECT count(*) FROM identity.guesses").fetchall() == [{"count": 0}]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"grant_type": "authorization_code", "code": "x"}, "unsupported_grant_type"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, "unsupported_grant_type"),
        ({"grant_type": "Password"}, "unsupported_grant_type"),
        ({"grant_type": "password "}, "unsupported_grant_type"),
        ({"scope": "users:read fly"}, "invalid_scope"),
        ({"scope": "USERS:READ"}, "invalid_scope"),
        ({"scope": 'self"\r\nX: y'}, "invalid_scope"),
        ({"username": ""}, "invalid_request"),
    ],
)
@pytest.mark.usefixtures("ada")
async def test_a_refusal_has_the_error_of_oauth(visit: Visit, fields: dict[str, str], error: str) -> None:
    answer = await visit().post("/login", data=SURE | fields)
    assert oauth_error(answer, 400) == error
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("self", "self"),
        ("users:read self", "self users:read"),
        ("self  self", "self"),
        ("self users:write users:erase", "self"),
        ("ops", ""),
        (" ", ""),
    ],
)
@pytest.mark.usefixtures("ada")
async def test_a_login_may_ask_for_less_than_it_could_have(visit: Visit, asked: str, granted: str) -> None:
    client = visit()
    body = (await log_in(client, scope=asked)).json()
    assert body["scope"] == granted
    assert jwt.decode(body["access_token"], options={"verify_signature": False})["scope"] == granted
    # what the refresh token gives is no more
    body = (await client.post("/refresh", data={"refresh_token": body["refresh_token"]})).json()
    assert body["scope"] == granted


@pytest.mark.parametrize("header", ["Basic Og==", "Basic YTpi", "Basic", "Basic !", "Bearer wrong", "Bearer", "x"])
@pytest.mark.usefixtures("ada")
async def test_who_logs_in_with_a_password_needs_no_client(visit: Visit, header: str) -> None:
    """The Authorize button of /docs sends the client that was not filled in."""
    fields = SURE | {"grant_type": "password", "scope": "", "client_id": "string", "client_secret": "********"}
    answer = await visit().post("/login", data=fields, headers={"Authorization": header})
    assert answer.status_code == 200


@pytest.mark.usefixtures("ada")
async def test_a_password_in_the_address_is_no_login(visit: Visit) -> None:
    answer = await visit().post("/login", params=SURE)
    assert oauth_error(answer, 400) == "invalid_request"
    for method in ("GET", "PUT", "DELETE"):
        assert codes(await visit().request(method, "/login", params=SURE), 405) == ["method_not_allowed"]


@pytest.mark.usefixtures("ada")
async def test_a_new_login_leaves_the_others_alone(visit: Visit) -> None:
    first, second = visit(token=await token_from(visit())), visit(token=await token_from(visit()))
    for client in (first, second):
        sessions = (await client.get("/sessions")).json()["sessions"]
        assert [session["current"] for session in sessions].count(True) == 1
        assert len(sessions) == 2


@pytest.mark.usefixtures("ada")
async def test_what_a_browser_calls_itself_is_kept_for_its_owner_alone_and_harmless(visit: Visit) -> None:
    client = visit()
    for agent in (b"Mozilla/5.0", b"\xff\xfe \x1b[31m", b"x" * 5000, b"", b"\t"):
        answer = await client.post("/login", data=SURE, headers=[(b"User-Agent", agent)])
        assert answer.status_code == 200
    token = answer.json()["access_token"]
    shown = (await visit(token=token).get("/sessions")).json()["sessions"]
    assert [session["user_agent"] for session in shown] == [None, None, "x" * 200, "\xff\xfe [31m", "Mozilla/5.0"]


async def test_a_login_is_refused_while_nobody_can_tell(make_settings: MakeSettings) -> None:
    app = create_app(make_settings("muster_command", database_url="postgresql://127.0.0.1:1/nowhere"))
    async with app.router.lifespan_context(app):
        answer = await log_in(visitor(app))
    assert codes(answer, 503) == ["unavailable"]
    assert answer.headers["retry-after"] == "1"


async def test_every_refusal_of_a_login_has_the_members_of_an_oauth_error(visit: Visit) -> None:
    client = visit()
    form = {"username": "ada@example.com", "password": "wrong"}
    foreign = await client.post("/login?cookies=true", data=form, headers={"Origin": "https://evil.example"})
    unclear = await client.post("/login?cookies=maybe", data=form)
    large = await client.post("/refresh", content=b"refresh_token=" + b"x" * 70_000, headers={"Content-Length": "9"})
    told = [(answer.status_code, answer.json().get("error")) for answer in (foreign, unclear, large)]
    assert told == [(403, "access_denied"), (422, "invalid_request"), (413, "invalid_request")]
    for answer in (foreign, unclear, large):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json()["error_description"] == answer.json()["detail"]
