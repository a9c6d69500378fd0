"""What is written of logins, refusals, revocations and denied requests: and what never is."""

import io
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import orjson
import psycopg
import pytest
import structlog
from prometheus_client import REGISTRY

from identity.roles import Scope
from runtime.logs import add_ids
from tests.calls import create
from tests.integration.identity.conftest import Visit
from tests.logins import CLIENT_SECRET, EMAIL, PASSWORD, log_in, make_client, token_from
from tests.plain_http import PLAIN
from tests.processes import StartProcess
from tests.tokens import ADMIN_ID, token_of

Owner = psycopg.Connection[dict[str, Any]]
Line = dict[str, Any]
HOME = "https://muster"
# what every line has, whatever it is about
FRAME = {"event", "level", "timestamp", "module", "security", "request_id", "correlation_id"}
IDS = {"subject", "session", "client", "by", "user", "account", "address", "scope", "method", "route", "reason"}
NASTY = [
    "\r\n{}\r\n",
    '\r\n{"event":"login.succeeded","security":true,"subject":"forged"}\r\n',
    '","security":false,"x":"',
    "\x1b[2J\x1b[31mred\x1b[0m",
    "\x00\x07\x08\x7f",
    "\u2028\u2029\u202e\ufeff",
    "%0d%0aforged",
    "${jndi:ldap://evil.example/a}",
    "<script>alert(1)</script>",
    "' OR 1=1 --",
]


@dataclass(slots=True)
class Log:
    """The lines as a process writes them to its standard output."""

    written: io.BytesIO = field(default_factory=io.BytesIO)
    read: int = 0

    def lines(self) -> list[Line]:
        """The lines since the last call, each one JSON object and nothing else."""
        new = self.written.getvalue()[self.read :]
        self.read += len(new)
        assert new == b"" or new.endswith(b"\n")
        assert not any(byte < 0x20 and byte != 0x0A for byte in new)
        found = [orjson.loads(line) for line in new.split(b"\n")[:-1]]
        assert all(isinstance(line, dict) for line in found)
        return found

    def security(self) -> list[Line]:
        """Those of the security log, without what all lines have; none has anything but ids."""
        lines = [line for line in self.lines() if line.get("security")]
        for line in lines:
            assert line.keys() <= FRAME | IDS
            assert (line["module"], line["level"]) == ("security", "warning")
            assert all(isinstance(line[name], str) and line[name] for name in line.keys() & IDS)
        return [{name: line[name] for name in line.keys() - FRAME | {"event"}} for line in lines]

    def events(self) -> list[str]:
        return [line["event"] for line in self.security()]


@pytest.fixture
def log() -> Iterator[Log]:
    """Written as runtime.logs has the processes write it."""
    log = Log()
    structlog.configure(
        processors=[
            add_ids,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(log.written),
    )
    yield log
    structlog.reset_defaults()


@pytest.fixture
async def ada(log: Log, admin: httpx.AsyncClient) -> dict[str, Any]:
    user = await create(admin, EMAIL, display_name="Ada Lovelace", password=PASSWORD)
    assert log.security() == []
    return user


def counted(event: str) -> float:
    return REGISTRY.get_sample_value("muster_security_events_total", {"event": event}) or 0


def session_of(owner: Owner) -> str:
    """The newest session's id."""
    rows = owner.execute("SELECT id::text FROM identity.sessions ORDER BY created_at DESC LIMIT 1").fetchall()
    return rows[0]["id"]


async def test_every_login_is_told(visit: Visit, log: Log, owner: Owner, ada: dict[str, Any]) -> None:
    await log_in(visit())
    [line] = log.security()
    address = line.pop("address")
    assert line == {"event": "login.succeeded", "subject": ada["id"], "session": session_of(owner)}

    await log_in(visit(), password="wrong-password")
    [line] = log.security()
    account = line.pop("account")
    assert line == {"event": "login.refused", "subject": ada["id"], "address": address}

    await log_in(visit("10.0.0.2"), "nobody@example.com")
    [line] = log.security()
    assert line.keys() == {"event", "account", "address"}
    assert line["event"] == "login.refused"
    # two tries of one account, or from one address, can be seen to be that
    assert line["account"] != account
    assert line["address"] != address

    for _ in range(5):
        await log_in(visit(), password="wrong-password")
    assert log.security()[-1] == {"event": "login.throttled", "account": account, "address": address}


async def test_every_login_of_a_service_is_told(visit: Visit, log: Log, owner: Owner) -> None:
    client_id = make_client(owner, "users:read")
    fields = {"grant_type": "client_credentials", "client_id": str(client_id), "client_secret": CLIENT_SECRET}
    await visit().post("/login", data=fields)
    succeeded = {"event": "login.succeeded", "subject": str(client_id), "session": session_of(owner)}
    assert log.security() == [succeeded]
    await visit().post("/login", data=fields | {"client_secret": "wrong"})
    assert log.security() == [{"event": "login.refused", "client": str(client_id)}]
    await visit().post("/login", data=fields | {"client_id": "no id"})
    assert log.security() == [{"event": "login.refused"}]


async def test_every_refresh_is_told(visit: Visit, log: Log, owner: Owner, ada: dict[str, Any]) -> None:
    client = visit()
    first = (await log_in(client)).json()["refresh_token"]
    log.lines()
    ids = {"subject": ada["id"], "session": session_of(owner)}

    async def refresh(token: str) -> str:
        answer = await client.post("/refresh", data={"refresh_token": token})
        return answer.json().get("refresh_token", "")

    second = await refresh(first)
    assert log.security() == [{"event": "refresh.rotated", **ids}]
    await refresh(first)
    assert log.security() == [{"event": "refresh.repeated", **ids}]
    await refresh(await refresh(second))
    log.lines()
    await refresh(first)
    assert log.security() == [{"event": "refresh.reused", **ids}]
    await refresh(second)
    assert log.security() == [{"event": "refresh.ended", **ids}]
    await refresh("mrt_malformed")
    assert log.security() == [{"event": "refresh.malformed"}]
    owner.execute("DELETE FROM identity.sessions")
    await refresh(second)
    # of a session that is not known there is nothing to tell
    assert log.security() == [{"event": "refresh.unknown"}]


async def test_every_end_of_a_session_is_told(visit: Visit, log: Log, owner: Owner, ada: dict[str, Any]) -> None:
    ended = {"event": "session.ended", "by": ada["id"]}
    answer = (await log_in(visit())).json()
    session = session_of(owner)
    log.lines()
    await visit(token=answer["access_token"]).post("/logout")
    assert log.security() == [{**ended, "session": session}]

    answer = (await log_in(visit())).json()
    session = session_of(owner)
    log.lines()
    await visit().post("/logout", data={"refresh_token": answer["refresh_token"]})
    assert log.security() == [{**ended, "session": session}]

    await log_in(visit())
    session = session_of(owner)
    log.lines()
    await visit(token=token_of()).delete(f"/sessions/{session}")
    assert log.security() == [{**ended, "session": session, "by": str(ADMIN_ID)}]


async def test_every_revocation_is_told(visit: Visit, log: Log, admin: httpx.AsyncClient, ada: dict[str, Any]) -> None:
    path, by = f"/users/{ada['id']}", {"subject": ada["id"], "by": str(ADMIN_ID)}
    me = visit(token=await token_from(visit()))
    log.lines()
    await me.patch("/users/me", json={"password": "another phrase", "current_password": PASSWORD})
    assert log.security() == [{"event": "user.sessions_revoked", "subject": ada["id"], "by": ada["id"]}]
    for change, event in (
        ({"roles": ["auditor"]}, "user.tokens_revoked"),
        ({"password": PASSWORD}, "user.sessions_revoked"),
        ({"status": "disabled"}, "user.sessions_revoked"),
    ):
        await admin.patch(path, json=change)
        assert log.security() == [{"event": event, **by}]
    for change in ({"status": "active"}, {"display_name": "Countess"}, {"email": "countess@example.com"}, {}):
        await admin.patch(path, json=change)
    assert log.security() == []
    await admin.delete(path)
    assert log.security() == [{"event": "user.sessions_revoked", **by}]


async def test_every_denied_request_is_told(visit: Visit, log: Log, owner: Owner, ada: dict[str, Any]) -> None:
    me = visit(token=await token_from(visit()))
    session = session_of(owner)
    mine = {"subject": ada["id"], "session": session}
    log.lines()
    other = f"/users/{UUID(int=1)}"

    await visit().patch(other, json={})
    assert log.security() == [{"event": "access.unauthenticated", "method": "PATCH", "route": "/users/{id}"}]

    await visit(token="a.b.c").delete(other)
    [line] = log.security()
    assert line.pop("reason")
    assert line == {"event": "access.invalid_token", "method": "DELETE", "route": "/users/{id}"}

    await me.post("/users", json={})
    denied = {"event": "access.denied", **mine}
    assert log.security() == [{**denied, "scope": "users:write", "method": "POST", "route": "/users"}]

    await me.get("/sessions", params={"user_id": str(UUID(int=1))})
    assert log.security() == [{**denied, "scope": "users:write", "method": "GET", "route": "/sessions"}]

    await me.patch("/users/me", json={"roles": ["admin"]})
    assert log.security() == [{"event": "access.not_yours", **mine}]

    await me.patch("/users/me", json={"password": "another phrase", "current_password": "wrong"})
    assert log.security() == [{"event": "password.refused", "subject": ada["id"]}]
    for _ in range(5):
        await me.patch("/users/me", json={"password": "another phrase", "current_password": "wrong"})
    assert log.security()[-1] == {"event": "password.throttled", "subject": ada["id"]}


async def test_who_reaches_too_high_is_told_of(visit: Visit, log: Log, admin: httpx.AsyncClient) -> None:
    root = await create(admin, "root@example.com", roles=["admin"])
    writer = visit(token=token_of(UUID(int=7), frozenset({Scope.USERS_WRITE})))
    await writer.patch(f"/users/{root['id']}", json={"display_name": "x"})
    assert log.security() == [{"event": "access.outranked", "subject": str(UUID(int=7)), "user": root["id"]}]


async def test_a_repeat_that_would_reach_too_high_by_now_is_answered_and_not_told_of(
    visit: Visit, log: Log, admin: httpx.AsyncClient
) -> None:
    ada = await create(admin, "ada.lovelace@example.com")
    path, change, key = f"/users/{ada['id']}", {"display_name": "Ada"}, {"Idempotency-Key": "key-1"}
    writer = visit(token=token_of(UUID(int=7), frozenset({Scope.USERS_WRITE})))
    first = await writer.patch(path, json=change, headers=key)
    await admin.patch(path, json={"roles": ["admin"]})
    log.security()
    again = await writer.patch(path, json=change, headers=key)
    assert (again.status_code, again.content) == (first.status_code, first.content) == (200, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert log.security() == []
    assert (await writer.patch(path, json=change)).status_code == 403
    assert log.security() == [{"event": "access.outranked", "subject": str(UUID(int=7)), "user": ada["id"]}]


@pytest.mark.usefixtures("ada")
async def test_a_request_that_another_site_made_is_told(visit: Visit, log: Log, owner: Owner) -> None:
    browser = visit()
    fields = {"username": EMAIL, "password": PASSWORD}
    await browser.post("/login?cookies=true", data=fields, headers={"Origin": "https://evil.example"})
    assert log.security() == [{"event": "access.foreign_origin"}]
    await browser.post("/login?cookies=true", data=fields, headers={"Origin": HOME})
    log.lines()
    await browser.patch("/users/me", json={}, headers={"Origin": "https://evil.example"})
    assert log.security() == [{"event": "access.foreign_origin"}]
    await browser.patch("/users/me", json={}, headers={"Origin": HOME, "X-CSRF-Token": "guessed"})
    assert log.security() == [{"event": "access.csrf", "session": session_of(owner)}]


async def test_lines_are_counted(visit: Visit, ada: dict[str, Any]) -> None:
    before = {event: counted(event) for event in ("login.succeeded", "login.refused", "access.unauthenticated")}
    await log_in(visit(), ada["email"])
    await log_in(visit(), password="wrong-password")
    await log_in(visit(), "nobody@example.com")
    await visit().get("/sessions")
    assert {event: counted(event) - count for event, count in before.items()} == {
        "login.succeeded": 1,
        "login.refused": 2,
        "access.unauthenticated": 1,
    }
    shown = (await visit().get("/metrics")).text
    assert 'muster_security_events_total{event="login.refused"}' in shown


async def test_nothing_secret_or_personal_is_written(
    visit: Visit, log: Log, admin: httpx.AsyncClient, owner: Owner, ada: dict[str, Any]
) -> None:
    address, agent = "203.0.113.77", "Mozilla/5.0 (Ada's own)"
    client_id = make_client(owner, "users:read", name="the-billing-service")
    client = visit(address)
    client.headers["User-Agent"] = agent
    fields = {"username": EMAIL, "password": PASSWORD}
    browser = visit(address)
    cookies = await browser.post("/login?cookies=true", data=fields, headers={"Origin": HOME})
    csrf = cookies.json()["csrf_token"]
    tokens = (await log_in(client)).json()
    me = visit(address, token=tokens["access_token"])
    rotated = (await client.post("/refresh", data={"refresh_token": tokens["refresh_token"]})).json()
    await client.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
    await client.post("/refresh", json={"refresh_token": "mrt_" + "A" * 86})
    await browser.post("/refresh", headers={"Origin": HOME, "X-CSRF-Token": csrf})
    await browser.post("/refresh", headers={"Origin": HOME, "X-CSRF-Token": "wrong-csrf"})
    secret = {"grant_type": "client_credentials", "client_id": str(client_id), "client_secret": CLIENT_SECRET}
    service = (await client.post("/login", data=secret)).json()
    await client.post("/login", data=secret | {"client_secret": "wrong-secret"})
    for _ in range(7):
        await log_in(client, password="wrong-password")
        await log_in(client, "unknown@example.com", "wrong-password")
        await me.patch("/users/me", json={"password": "a new phrase", "current_password": "wrong-password"})
    await me.patch("/users/me", json={"email": "lovelace@example.com", "display_name": "Countess", "roles": []})
    await visit(address, token=tokens["access_token"][:-5]).get("/sessions")
    await me.post("/users", json={"email": "x@example.com"})
    await me.patch("/users/me", json={"email": "lovelace@example.com", "display_name": "Countess"})
    await admin.patch(f"/users/{ada['id']}", json={"password": "yet another phrase"})
    await me.post("/logout")
    await browser.post("/logout", headers={"Origin": HOME, "X-CSRF-Token": csrf})
    await admin.delete(f"/users/{ada['id']}")
    text = orjson.dumps(lines := log.lines()).decode()
    assert sum(bool(line.get("security")) for line in lines) > 30
    secrets = [PASSWORD, "wrong-password", "phrase", CLIENT_SECRET, "wrong-secret", "mrt_", csrf, "wrong-csrf"]
    secrets += [token["access_token"].split(".")[2] for token in (tokens, rotated, service)]
    personal = ["@", "example.com", "lovelace", "Lovelace", "Ada", "Countess", "203.0.113", "Mozilla", "billing"]
    assert [found for found in secrets + personal if found in text] == []


@pytest.mark.parametrize("nasty", NASTY, ids=range(len(NASTY)))
async def test_no_value_can_forge_or_hide_a_line(visit: Visit, log: Log, nasty: str, ada: dict[str, Any]) -> None:
    client = visit()
    raw = nasty.encode()
    # what no HTTP server passes on in a header
    header = bytes(byte for byte in raw if byte not in b"\r\n\0")
    for name in (b"User-Agent", b"X-Request-Id", b"X-Correlation-Id", b"Origin", b"Cookie", b"Authorization"):
        await client.post("/login?cookies=1", data={"username": EMAIL, "password": PASSWORD}, headers=[(name, header)])
        await client.patch("/users/me", json={}, headers=[(name, header)])
    fields = {"username": nasty, "password": nasty, "scope": nasty, "client_id": nasty, "client_secret": nasty}
    await client.post("/login", data=fields)
    await client.post("/login", data=fields | {"scope": ""})
    await client.post("/login", data=fields | {"grant_type": nasty})
    await client.post("/login", data=fields | {"scope": "", "grant_type": "client_credentials"})
    await client.post("/refresh", data={"refresh_token": nasty})
    await client.post("/logout", data={"refresh_token": nasty})
    await client.get("/sessions", params={"user_id": nasty})
    await visit(token=token_of(UUID(ada["id"]), sid=nasty)).get("/sessions")
    for path in (f"/users/{nasty}", f"/{nasty}", f"/sessions/{nasty}"):
        for method in ("GET", "PATCH", "DELETE"):
            await client.request(method, quote(path))
    lines = log.lines()
    assert all(line["event"] for line in lines)
    security = [line for line in lines if line.get("security")]
    assert len(security) >= 10
    assert {line["event"] for line in security} <= {
        "access.csrf",
        "access.foreign_origin",
        "access.invalid_token",
        "access.unauthenticated",
        "login.refused",
        "refresh.malformed",
    }
    for line in security:
        told = orjson.dumps({name: line[name] for name in line.keys() - {"request_id", "correlation_id"}}).decode()
        assert nasty not in told
        assert "forged" not in told


async def test_what_a_stranger_wrote_into_a_token_is_not_repeated(visit: Visit, log: Log) -> None:
    for header in ({"crit": ["zebedee@example.com"]}, {"kid": "zebedee"}, {"alg": "zebedee"}, {"typ": "zebedee"}):
        parts = (orjson.dumps({"alg": "EdDSA", **header}), b'{"iss": "zebedee"}', b"zebedee")
        token = ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
        await visit(token=token).get("/sessions")
    lines = log.security()
    assert [line["event"] for line in lines] == ["access.invalid_token"] * 4
    assert "zebedee" not in str(lines)


def test_a_process_writes_it_to_its_standard_output(start_process: StartProcess) -> None:
    process = start_process("command_api", broker=False).wait_until_ready()
    fields = {"username": "ada@example.com\r\n{}", "password": PASSWORD}
    assert httpx.post(f"{process.url}/login", data=fields, verify=PLAIN, trust_env=False).status_code == 401
    assert httpx.post(f"{process.url}/logout", verify=PLAIN, trust_env=False).status_code == 401
    assert process.stop() == 0
    lines = [orjson.loads(line) for line in process.log.read_bytes().splitlines()]
    security = [line for line in lines if line.get("security")]
    assert [line["event"] for line in security] == ["login.refused", "access.unauthenticated"]
    for line in security:
        assert line.keys() <= FRAME | IDS | {"process"}
        assert (line["process"], line["level"]) == ("command-api", "warning")
        assert line["request_id"]
    assert "ada@" not in process.log.read_text()
