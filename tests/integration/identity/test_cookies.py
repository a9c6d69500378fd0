from collections.abc import AsyncIterator, Callable
from http.cookies import Morsel, SimpleCookie
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from fastapi import FastAPI

from command_api.app import create_app as create_command_app
from identity.cookies import ACCESS, CSRF, DEVICE, REFRESH
from query_api.app import create_app as create_query_app
from tests.calls import codes, create
from tests.databases import MakeSettings
from tests.integration.identity.conftest import Visit
from tests.logins import EMAIL, PASSWORD, log_in, oauth_error, token_from, until_void, visitor
from tests.people import ADA
from tests.read_model import ReadModel

Owner = psycopg.Connection[dict[str, Any]]
Page = Callable[..., httpx.AsyncClient]
HOME = "https://muster"
SURE = {"username": EMAIL, "password": PASSWORD}
FOREIGN = [
    None,
    "null",
    "",
    "https://evil.example",
    "https://muster.evil.example",
    "https://evil-muster",
    "https://muster:8443",
    "https://muster@evil.example",
    "https://muster evil",
    "https://[muster",
    "muster",
    "https://",
    "https://muster, https://evil.example",
]


@pytest.fixture
async def ada(admin: httpx.AsyncClient) -> dict[str, Any]:
    return await create(admin, EMAIL, password=PASSWORD, roles=["admin"])


@pytest.fixture
async def browser(visit: Visit, ada: dict[str, Any]) -> httpx.AsyncClient:
    """Ada's browser on our own page: it keeps the cookies, and its script repeats the CSRF token."""
    assert ada["email"] == EMAIL
    return await browsing(visit())


async def browsing(client: httpx.AsyncClient) -> httpx.AsyncClient:
    answer = await client.post("/login?cookies=true", data=SURE, headers={"Origin": HOME})
    assert answer.status_code == 200, answer.text
    client.headers.update({"Origin": HOME, "X-CSRF-Token": answer.json()["csrf_token"]})
    return client


@pytest.fixture
def page(visit: Visit, browser: httpx.AsyncClient) -> Page:
    """A page in Ada's browser that does not send these headers: page("Origin")."""

    def without(*names: str) -> httpx.AsyncClient:
        other = visit()
        other.cookies = browser.cookies
        other.headers.update(browser.headers)
        for name in names:
            del other.headers[name]
        return other

    return without


def set_by(answer: httpx.Response) -> dict[str, Morsel[str]]:
    cookies = SimpleCookie()
    for line in answer.headers.get_list("set-cookie"):
        cookies.load(line)
    return dict(cookies)


@pytest.mark.usefixtures("ada")
async def test_the_tokens_come_as_cookies_that_no_script_and_no_other_host_sees(visit: Visit) -> None:
    answer = await visit().post("/login?cookies=true", data=SURE, headers={"Origin": HOME})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body.keys() == {"token_type", "expires_in", "scope", "csrf_token"}
    lines = {line.partition("=")[0]: line for line in answer.headers.get_list("set-cookie")}
    assert lines.keys() == {f"__Host-muster-{name}" for name in ("access", "refresh", "csrf", "device")}
    attributes = {name: set(line.split("; ")[1:]) for name, line in lines.items()}
    assert attributes == {
        ACCESS: {"HttpOnly", "Max-Age=600", "Path=/", "SameSite=lax", "Secure"},
        REFRESH: {"HttpOnly", "Max-Age=2592000", "Path=/", "SameSite=lax", "Secure"},
        # our pages' scripts read this one
        CSRF: {"Max-Age=2592000", "Path=/", "SameSite=lax", "Secure"},
        DEVICE: {"HttpOnly", "Max-Age=31536000", "Path=/", "SameSite=lax", "Secure"},
    }
    cookies = set_by(answer)
    assert cookies[CSRF].value == body["csrf_token"]
    assert cookies[REFRESH].value.startswith("mrt_")
    assert jwt.decode(cookies[ACCESS].value, options={"verify_signature": False})["client_id"] == "muster"
    for name in (ACCESS, REFRESH, DEVICE):
        assert cookies[name].value not in answer.text
    assert max(map(len, lines.values())) < 4096


@pytest.mark.usefixtures("ada")
async def test_without_asking_there_are_no_cookies(visit: Visit) -> None:
    for query in ("", "?cookies=false", "?cookies=0"):
        answer = await visit().post(f"/login{query}", data=SURE)
        assert "set-cookie" not in answer.headers
        assert "access_token" in answer.json()
    assert (await visit().post("/login?cookies=maybe", data=SURE)).status_code == 422


@pytest.mark.parametrize("origin", FOREIGN)
async def test_no_other_site_can_log_a_browser_in(
    visit: Visit, owner: Owner, ada: dict[str, Any], origin: str | None
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    answer = await visit().post("/login?cookies=true", data=SURE, headers=headers)
    assert codes(answer, 403) == ["foreign_origin"]
    assert "set-cookie" not in answer.headers
    rows = owner.execute("SELECT 1 FROM identity.sessions WHERE subject = %s", (ada["id"],)).fetchall()
    assert rows == []


async def test_a_wrong_password_sets_no_cookie(visit: Visit) -> None:
    answer = await visit().post("/login?cookies=true", data=SURE, headers={"Origin": HOME})
    assert oauth_error(answer, 401) == "invalid_grant"
    assert "set-cookie" not in answer.headers


async def test_a_browser_may_do_what_its_user_may(browser: httpx.AsyncClient) -> None:
    assert (await browser.get("/sessions")).status_code == 200
    grace = await create(browser, "grace@example.com")
    path = f"/users/{grace['id']}"
    for method, body in (("PATCH", {"display_name": "Grace"}), ("PUT", {"display_name": "G"}), ("DELETE", None)):
        assert (await browser.request(method, path, json=body)).status_code == 200
    assert (await browser.patch("/users/me", json={"display_name": "Ada"})).status_code == 200


async def test_what_changes_nothing_needs_no_proof(page: Page) -> None:
    bare = page("Origin", "X-CSRF-Token")
    assert (await bare.get("/sessions")).status_code == 200
    assert (await bare.get("/sessions", headers={"Origin": "https://evil.example"})).status_code == 200


CHANGES = [
    ("POST", "/users", {"email": "grace@example.com"}),
    ("PATCH", "/users/me", {"display_name": "Mallory"}),
    ("PUT", "/users/me", {"display_name": "Mallory"}),
    ("PATCH", "/users/{id}", {"display_name": "Mallory"}),
    ("PUT", "/users/{id}", {"display_name": "Mallory"}),
    ("DELETE", "/users/{id}", None),
    ("DELETE", "/sessions/{id}", None),
    ("POST", "/logout", None),
    ("POST", "/refresh", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
async def test_no_other_site_can_change_anything(
    page: Page,
    browser: httpx.AsyncClient,
    owner: Owner,
    ada: dict[str, Any],
    method: str,
    path: str,
    body: dict[str, str] | None,
) -> None:
    path = path.replace("{id}", ada["id"])
    before = state(owner)
    for origin in FOREIGN:
        bare = page("Origin")
        answer = await bare.request(method, path, json=body, headers={} if origin is None else {"Origin": origin})
        assert codes(answer, 403) == ["foreign_origin"]
        assert "set-cookie" not in answer.headers
    another = await browsing(page("Origin", "X-CSRF-Token"))
    assert another.headers["x-csrf-token"] != browser.headers["x-csrf-token"]
    wrong = [
        None,
        "",
        "x",
        "0" * 43,
        browser.headers["x-csrf-token"][:-1],
        browser.headers["x-csrf-token"] + "=",
        browser.headers["x-csrf-token"].swapcase(),
        # of another session of the same user
        another.headers["x-csrf-token"],
        "schl\xfcssel",
    ]
    before = state(owner)
    for token in wrong:
        bare = page("X-CSRF-Token")
        headers = [] if token is None else [(b"X-CSRF-Token", token.encode("latin-1"))]
        answer = await bare.request(method, path, json=body, headers=headers)
        assert codes(answer, 403) == ["csrf"]
        assert "set-cookie" not in answer.headers
    assert state(owner) == before


def state(owner: Owner) -> list[Any]:
    events = owner.execute("SELECT position FROM log.events").fetchall()
    sessions = owner.execute("SELECT id, secret_hash, ended_at FROM identity.sessions ORDER BY id").fetchall()
    return [events, sessions]


async def test_a_cross_site_form_has_no_effect(page: Page, browser: httpx.AsyncClient) -> None:
    """What a page of another site can make a browser send without asking: a form."""
    bare = page("X-CSRF-Token")
    bare.headers["Origin"] = "https://evil.example"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        for path in ("/users", "/logout", "/refresh"):
            answer = await bare.post(path, content=b"a=b", headers={"Content-Type": kind})
            assert answer.status_code in {403, 415}
    assert (await browser.get("/sessions")).status_code == 200


@pytest.mark.parametrize(
    ("allowed", "origin", "welcome"),
    [
        ("https://app.example.com", "https://app.example.com", True),
        ("https://App.Example.com:443/", "https://app.example.com", True),
        ("https://app.example.com", "https://APP.example.com", False),
        ("https://app.example.com", "http://app.example.com", False),
        ("https://app.example.com", "https://app.example.com:8443", False),
        ("https://app.example.com:8443", "https://app.example.com:8443", True),
        ("https://app.example.com:8443", "https://app.example.com", False),
        ("https://app.example.com", "https://sub.app.example.com", False),
        ("https://app.example.com", "https://app.example.com.evil.example", False),
        ("https://a.example, https://b.example", "https://b.example", True),
        ("https://bücher.example", "https://xn--bcher-kva.example", True),
        ("https://app.example.com", "https://muster", True),
        ("https://app.example.com", "null", False),
    ],
)
async def test_other_origins_are_ours_when_settings_say_so(
    make_settings: MakeSettings, admin: httpx.AsyncClient, allowed: str, origin: str, *, welcome: bool
) -> None:
    await create(admin, EMAIL, password=PASSWORD)
    app = create_command_app(make_settings("muster_command", allowed_origins=allowed))
    async with app.router.lifespan_context(app):
        client = visitor(app)
        answer = await client.post("/login?cookies=true", data=SURE, headers={"Origin": origin})
        assert answer.status_code == (200 if welcome else 403)
        page = await browsing(client)
        answer = await page.patch("/users/me", json={"display_name": "Ada"}, headers={"Origin": origin})
        assert answer.status_code == (200 if welcome else 403)


@pytest.mark.usefixtures("ada")
async def test_the_host_with_its_port_is_our_own_page(visit: Visit) -> None:
    for host, origin, status in (
        ("muster:8443", "https://muster:8443", 200),
        ("MUSTER:8443", "https://muster:8443", 200),
        # behind a proxy that ends TLS nobody can tell the scheme
        ("muster", "http://muster", 200),
        ("muster:8443", "https://muster", 403),
        ("muster", "https://muster:8443", 403),
        ("[::1]:8001", "http://[::1]:8001", 200),
        ("", "https://", 403),
        ("", "https://muster", 403),
    ):
        headers = {"Host": host, "Origin": origin}
        answer = await visit().post("/login?cookies=true", data=SURE, headers=headers)
        assert answer.status_code == status, (host, origin)


@pytest.mark.usefixtures("ada")
async def test_who_sends_a_token_means_that_and_not_the_cookie(
    page: Page, browser: httpx.AsyncClient, visit: Visit
) -> None:
    bare = page("Origin", "X-CSRF-Token")
    mine = {"Authorization": f"Bearer {await token_from(visit())}"}
    # no browser sends this header by itself: it needs no other proof
    assert (await bare.patch("/users/me", json={"display_name": "Ada"}, headers=mine)).status_code == 200
    for header, code in (
        ("Bearer wrong", "invalid_token"),
        ("Bearer", "unauthenticated"),
        ("Basic YTpi", "unauthenticated"),
    ):
        for request in (("GET", "/sessions"), ("PATCH", "/users/me"), ("POST", "/logout")):
            answer = await browser.request(*request, headers={"Authorization": header})
            assert codes(answer, 401) == [code]
    assert (await browser.get("/sessions", headers={"Authorization": ""})).status_code == 200
    # a logout by token ends that one's session and leaves the browser's
    answer = await browser.post("/logout", headers=mine)
    assert answer.status_code == 204
    assert "set-cookie" not in answer.headers
    await until_void(visit(token=mine["Authorization"].removeprefix("Bearer ")))
    assert (await browser.get("/sessions")).status_code == 200


@pytest.mark.parametrize("value", ["", "x", "a.b.c", "schl\xfcssel", '"', "x" * 5000])
async def test_a_wrong_cookie_is_a_wrong_token(visit: Visit, value: str) -> None:
    for method, path in (("GET", "/sessions"), ("PATCH", "/users/me"), ("POST", "/logout")):
        cookie = f"{ACCESS}={value}".encode("latin-1")
        answer = await visit().request(method, path, headers=[(b"Cookie", cookie), (b"Origin", HOME.encode())])
        assert answer.status_code == 401
    for path in ("/refresh", "/logout"):
        cookie = f"{REFRESH}={value}".encode("latin-1")
        answer = await visit().post(path, headers=[(b"Cookie", cookie), (b"Origin", HOME.encode())])
        assert answer.status_code == 401


async def test_cookies_of_other_names_are_nothing(browser: httpx.AsyncClient, visit: Visit) -> None:
    token = browser.cookies[ACCESS]
    for name in ("muster-access", "access_token", ACCESS.lower(), "__Secure-muster-access", "__Host-muster-acces"):
        answer = await visit().get("/sessions", headers={"Cookie": f"{name}={token}"})
        assert codes(answer, 401) == ["unauthenticated"]
    assert (await visit().get("/sessions", headers={"Cookie": f"a=b; {ACCESS}={token}; c"})).status_code == 200


async def test_a_refresh_token_in_the_access_cookie_opens_nothing(browser: httpx.AsyncClient, visit: Visit) -> None:
    answer = await visit().get("/sessions", headers={"Cookie": f"{ACCESS}={browser.cookies[REFRESH]}"})
    assert codes(answer, 401) == ["invalid_token"]


async def test_the_cookies_are_refreshed(browser: httpx.AsyncClient) -> None:
    before = dict(browser.cookies)
    answer = await browser.post("/refresh")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json().keys() == {"token_type", "expires_in", "scope", "csrf_token"}
    cookies = set_by(answer)
    assert cookies.keys() == {ACCESS, REFRESH, CSRF}
    assert cookies[REFRESH].value != before[REFRESH]
    # the session is the same, and so is what proves it
    assert cookies[CSRF].value == answer.json()["csrf_token"] == before[CSRF]
    assert (await browser.get("/sessions")).status_code == 200
    assert (await browser.post("/refresh", data={"grant_type": "refresh_token"})).status_code == 200
    # a token in the body is answered in the body
    browser.headers.pop("Origin")
    answer = await browser.post("/refresh", data={"refresh_token": browser.cookies[REFRESH]})
    assert answer.json().keys() == {"token_type", "expires_in", "scope", "access_token", "refresh_token"}
    assert "set-cookie" not in answer.headers


async def test_after_a_logout_the_browser_has_no_token(browser: httpx.AsyncClient, visit: Visit) -> None:
    access, refresh = browser.cookies[ACCESS], browser.cookies[REFRESH]
    answer = await browser.post("/logout")
    assert answer.status_code == 204
    lines = {line.partition("=")[0]: line for line in answer.headers.get_list("set-cookie")}
    assert lines.keys() == {ACCESS, REFRESH, CSRF}
    for line in lines.values():
        # a browser takes a __Host- cookie, even to remove it, with these alone
        assert {"Max-Age=0", "Path=/", "Secure"} <= set(line.split("; "))
        assert "Domain" not in line
    # that somebody logged in here before is the device's to know
    assert browser.cookies.keys() == {DEVICE}
    await until_void(visit(token=access))
    assert oauth_error(await visit().post("/refresh", data={"refresh_token": refresh}), 401) == "invalid_grant"


@pytest.mark.parametrize("left", [None, "mrt_broken"])
async def test_a_logout_by_the_access_cookie_alone_ends_the_session(
    browser: httpx.AsyncClient, visit: Visit, left: str | None
) -> None:
    access = browser.cookies[ACCESS]
    headers = {"Cookie": f"{ACCESS}={access}" + (f"; {REFRESH}={left}" if left is not None else "")}
    browser.cookies.clear()
    answer = await browser.post("/logout", headers=headers)
    assert answer.status_code == 204
    assert set_by(answer).keys() == {ACCESS, REFRESH, CSRF}
    await until_void(visit(token=access))


async def test_who_was_logged_out_elsewhere_can_still_log_out(browser: httpx.AsyncClient, visit: Visit) -> None:
    session = jwt.decode(browser.cookies[ACCESS], options={"verify_signature": False})["sid"]
    assert (await visit(token=await token_from(visit())).delete(f"/sessions/{session}")).status_code == 204
    await until_void(browser)
    assert (await browser.post("/logout")).status_code == 204
    assert browser.cookies.keys() == {DEVICE}


@pytest.fixture
async def query_app(make_settings: MakeSettings) -> AsyncIterator[FastAPI]:
    app = create_query_app(make_settings("muster_query"))
    async with app.router.lifespan_context(app):
        yield app


async def test_both_apis_take_the_cookie(
    browser: httpx.AsyncClient, query_app: FastAPI, owner: Owner, make_settings: MakeSettings
) -> None:
    ReadModel(owner, make_settings("muster_query").events_topic).hold([ADA])
    reader = visitor(query_app)
    assert codes(await reader.get("/users"), 401) == ["unauthenticated"]
    cookie = {"Cookie": f"{ACCESS}={browser.cookies[ACCESS]}"}
    for path in ("/users", f"/users/{ADA.id}"):
        for origin in ({}, {"Origin": "https://evil.example"}):
            assert (await reader.get(path, headers=cookie | origin)).status_code == 200
    wrong = {"Cookie": f"{ACCESS}={browser.cookies[REFRESH]}"}
    assert codes(await reader.get("/users", headers=wrong), 401) == ["invalid_token"]
    assert (await browser.post("/logout")).status_code == 204
    reader.headers.update(cookie)
    await until_void(reader, "/users")


async def test_a_wrong_scope_is_told_after_the_proof(visit: Visit, admin: httpx.AsyncClient) -> None:
    await create(admin, EMAIL, password=PASSWORD, roles=["user"])
    browser = await browsing(visit())
    body = {"email": "grace@example.com"}
    assert codes(await browser.post("/users", json=body), 403) == ["insufficient_scope"]
    assert codes(await browser.post("/users", json=body, headers={"X-CSRF-Token": ""}), 403) == ["csrf"]


async def test_a_login_without_cookies_is_not_changed_by_those_it_has(page: Page) -> None:
    answer = await log_in(page("Origin", "X-CSRF-Token"))
    assert answer.json().keys() >= {"access_token", "refresh_token"}
    assert "set-cookie" not in answer.headers
