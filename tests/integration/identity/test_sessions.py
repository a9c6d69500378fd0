"""Sessions as their owners and administrators see and end them, and how they end by themselves."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from command_api.app import create_app
from identity.refresh_tokens import RefreshToken
from runtime.ids import new_id
from tests.apps import client_of
from tests.calls import codes
from tests.databases import MakeSettings
from tests.sessions import PASSWORD, LoggedIn, log_in, refresh, register, tokens_in
from tests.tokens import authorized
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]
ADA, BOB = "ada@example.com", "bob@example.com"


@pytest.fixture
async def ada(commands: httpx.AsyncClient) -> UUID:
    return await register(commands, ADA)


@pytest.fixture
async def bob(commands: httpx.AsyncClient) -> UUID:
    return await register(commands, BOB)


async def shown(client: httpx.AsyncClient, login: LoggedIn, **query: str) -> list[dict[str, Any]]:
    answer = await client.get("/sessions", headers=login.headers, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()["sessions"]


async def ids(client: httpx.AsyncClient, login: LoggedIn) -> list[str]:
    return [session["id"] for session in await shown(client, login)]


async def void(client: httpx.AsyncClient, login: LoggedIn) -> None:
    """Assert that the session is over, the access token within a second."""

    async def refused() -> bool:
        return (await client.get("/sessions", headers=login.headers)).status_code == 401

    assert (await refresh(client, login.refresh)).status_code == 401
    await aeventually(refused, what="the access token is void", timeout=5)


async def living(client: httpx.AsyncClient, login: LoggedIn) -> LoggedIn:
    """Assert that the session goes on; gives its next tokens."""
    assert (await client.get("/sessions", headers=login.headers)).status_code == 200
    return tokens_in(await refresh(client, login.refresh))


def revocations(owner: Owner) -> int:
    return owner.execute("SELECT number FROM identity.revocation_head").fetchall()[0]["number"]


@pytest.mark.usefixtures("ada", "bob")
async def test_ones_own_sessions_are_listed_the_newest_first(commands: httpx.AsyncClient) -> None:
    logins = [await log_in(commands, ADA) for _ in range(3)]
    await log_in(commands, BOB)
    before = datetime.now(UTC)
    logins[0] = tokens_in(await refresh(commands, logins[0].refresh))
    found = await shown(commands, logins[1])
    assert [session["id"] for session in found] == [str(login.session) for login in reversed(logins)]
    assert [session["current"] for session in found] == [False, True, False]
    assert {tuple(session) for session in found} == {
        ("id", "created_at", "last_used_at", "expires_at", "user_agent", "current")
    }
    oldest = {name: datetime.fromisoformat(found[2][name]) for name in ("created_at", "last_used_at", "expires_at")}
    assert oldest["created_at"] < before < oldest["last_used_at"] < datetime.now(UTC) < oldest["expires_at"]


@pytest.mark.usefixtures("ada")
async def test_a_session_shows_what_program_logged_in(commands: httpx.AsyncClient) -> None:
    agents = {
        "Firefox/150.0 (X11; Linux)": "Firefox/150.0 (X11; Linux)",
        "": None,
        "not\tprintable\xa0": "notprintable",
        "é" * 300: "é" * 200,
    }
    for agent, expected in agents.items():
        headers = [(b"User-Agent", agent.encode("latin-1"))]
        form = {"username": ADA, "password": PASSWORD}
        login = tokens_in(await commands.post("/login", data=form, headers=headers))
        assert (await shown(commands, login))[0]["user_agent"] == expected


@pytest.mark.usefixtures("bob")
async def test_other_users_sessions_are_for_who_may_write_users(commands: httpx.AsyncClient, ada: UUID) -> None:
    hers, his = await log_in(commands, ADA), await log_in(commands, BOB)
    answer = await commands.get("/sessions", params={"user_id": str(ada)}, headers=his.headers)
    assert codes(answer, 403) == ["insufficient_scope"]
    assert str(hers.session) not in answer.text
    # one's own by one's own id is no secret
    assert [session["id"] for session in await shown(commands, hers, user_id=str(ada))] == [str(hers.session)]
    by_admin = (await commands.get("/sessions", params={"user_id": str(ada)})).json()["sessions"]
    assert [(session["id"], session["current"]) for session in by_admin] == [(str(hers.session), False)]
    assert (await commands.get("/sessions", params={"user_id": str(new_id())})).json() == {"sessions": []}
    assert (await commands.get("/sessions")).json() == {"sessions": []}


@pytest.mark.usefixtures("ada")
async def test_a_user_that_is_none_is_refused(commands: httpx.AsyncClient) -> None:
    for path in ("/sessions?user_id=x", "/sessions?user_id="):
        assert (await commands.get(path)).status_code == 422
    assert (await commands.delete("/sessions/x")).status_code == 422


@pytest.mark.usefixtures("ada")
async def test_one_of_ones_sessions_is_ended_and_the_others_go_on(commands: httpx.AsyncClient) -> None:
    first, second, third = [await log_in(commands, ADA) for _ in range(3)]
    answer = await commands.delete(f"/sessions/{first.session}", headers=second.headers)
    assert (answer.status_code, answer.content) == (204, b"")
    await void(commands, first)
    second, third = await living(commands, second), await living(commands, third)
    assert await ids(commands, second) == [str(third.session), str(second.session)]
    # one's own is the one that is spoken from, too
    assert (await commands.delete(f"/sessions/{third.session}", headers=third.headers)).status_code == 204
    await void(commands, third)
    assert await ids(commands, second) == [str(second.session)]


@pytest.mark.usefixtures("ada", "bob")
async def test_other_users_sessions_are_ended_by_who_may_write_users(commands: httpx.AsyncClient, owner: Owner) -> None:
    hers, his = await log_in(commands, ADA), await log_in(commands, BOB)
    answer = await commands.delete(f"/sessions/{hers.session}", headers=his.headers)
    assert codes(answer, 404) == ["session_not_found"]
    unknown = await commands.delete(f"/sessions/{new_id()}", headers=his.headers)
    # whether there is such a session is told to its owner alone
    assert answer.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    assert revocations(owner) == 0
    hers = await living(commands, hers)
    assert (await commands.delete(f"/sessions/{hers.session}")).status_code == 204
    await void(commands, hers)
    await living(commands, his)
    assert codes(await commands.delete(f"/sessions/{new_id()}"), 404) == ["session_not_found"]


@pytest.mark.usefixtures("ada")
async def test_the_right_to_see_and_end_others_sessions_goes_with_its_scope(commands: httpx.AsyncClient) -> None:
    admin = await register(commands, "admin@example.com", "admin")
    narrow = await log_in(commands, "admin@example.com", scope="self users:read")
    hers = await log_in(commands, ADA)
    assert codes(await commands.delete(f"/sessions/{hers.session}", headers=narrow.headers), 404)
    assert codes(await commands.get("/sessions", params={"user_id": str(new_id())}, headers=narrow.headers), 403)
    assert len(await shown(commands, narrow, user_id=str(admin))) == 1
    await living(commands, hers)


@pytest.mark.usefixtures("ada")
async def test_a_logout_ends_the_session_it_is_called_from(commands: httpx.AsyncClient) -> None:
    first, second = await log_in(commands, ADA), await log_in(commands, ADA)
    answer = await commands.post("/logout", headers=first.headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["cache-control"] == "no-store"
    await void(commands, first)
    second = await living(commands, second)
    assert await ids(commands, second) == [str(second.session)]
    assert codes(await commands.post("/logout", headers=first.headers), 401) == ["invalid_token"]


@pytest.mark.parametrize("kind", ["data", "json"])
@pytest.mark.usefixtures("ada")
async def test_a_refresh_token_is_enough_to_log_out(commands: httpx.AsyncClient, kind: str) -> None:
    del commands.headers["authorization"]
    login = await log_in(commands, ADA)
    for _ in range(2):
        # a second time says no more than the first
        answer = await commands.post("/logout", **{kind: {"refresh_token": login.refresh}})  # pyright: ignore[reportArgumentType]
        assert (answer.status_code, answer.content) == (204, b"")
    await void(commands, login)


@pytest.mark.usefixtures("ada")
async def test_a_used_refresh_token_logs_out_as_well(commands: httpx.AsyncClient) -> None:
    login = first = await log_in(commands, ADA)
    for _ in range(3):
        login = tokens_in(await refresh(commands, login.refresh))
    assert (await commands.post("/logout", data={"refresh_token": first.refresh})).status_code == 204
    await void(commands, login)


@pytest.mark.usefixtures("ada", "bob")
async def test_a_strangers_refresh_token_ends_nothing(commands: httpx.AsyncClient, owner: Owner) -> None:
    login = await log_in(commands, ADA)
    for text in ("x", RefreshToken.first(new_id()).text, RefreshToken.first(login.session).text, login.refresh[:-1]):
        assert (await commands.post("/logout", data={"refresh_token": text})).status_code == 204
    assert revocations(owner) == 0
    await living(commands, login)


async def test_a_logout_of_nobody_is_challenged(commands: httpx.AsyncClient) -> None:
    del commands.headers["authorization"]
    answer = await commands.post("/logout")
    assert codes(answer, 401) == ["unauthenticated"]
    assert answer.headers["www-authenticate"] == 'Bearer realm="muster"'


async def test_a_logout_without_a_session_is_quiet(commands: httpx.AsyncClient, owner: Owner) -> None:
    """As of a token whose session is long gone."""
    assert (await commands.post("/logout", headers=authorized())).status_code == 204
    assert revocations(owner) == 0


@pytest.mark.usefixtures("ada")
async def test_what_has_ended_or_expired_is_not_shown(commands: httpx.AsyncClient, owner: Owner) -> None:
    expired, ended, current = [await log_in(commands, ADA) for _ in range(3)]
    owner.execute("UPDATE identity.sessions SET expires_at = now() WHERE id = %s", (expired.session,))
    assert (await commands.delete(f"/sessions/{ended.session}", headers=current.headers)).status_code == 204
    assert await ids(commands, current) == [str(current.session)]


@pytest.mark.parametrize(
    ("change", "lives"),
    [
        ({"password": "another heron, another quay"}, False),
        ({"status": "disabled"}, False),
        ({"roles": ["operator"]}, True),
        ({"display_name": "Ada"}, True),
    ],
)
async def test_a_change_that_ends_sessions_takes_them_off_the_list(
    commands: httpx.AsyncClient, ada: UUID, change: dict[str, Any], *, lives: bool
) -> None:
    login = await log_in(commands, ADA)
    assert (await commands.patch(f"/users/{ada}", json=change)).status_code == 200
    listed = (await commands.get("/sessions", params={"user_id": str(ada)})).json()["sessions"]
    assert [session["id"] for session in listed] == ([str(login.session)] if lives else [])
    assert (await refresh(commands, login.refresh)).status_code == (200 if lives else 401)


@pytest.mark.usefixtures("ada")
async def test_what_is_long_over_is_purged(
    commands: httpx.AsyncClient, make_settings: MakeSettings, owner: Owner
) -> None:
    logins = [await log_in(commands, ADA) for _ in range(4)]
    assert (await commands.delete(f"/sessions/{logins[2].session}")).status_code == 204
    for login, age in zip(logins, ("25 h", "23 h", "25 h", "-1 h"), strict=True):
        owner.execute(
            "UPDATE identity.sessions SET expires_at = now() - %s::interval WHERE id = %s", (age, login.session)
        )
    assert (await commands.delete(f"/sessions/{logins[3].session}")).status_code == 204
    owner.execute(
        "UPDATE identity.revocations SET revoked_at = now() - interval '92 days' WHERE id = %s", (logins[2].session,)
    )

    async def purged() -> bool:
        rows = owner.execute("SELECT id FROM identity.revocations").fetchall()
        return {row["id"] for row in rows} == {logins[3].session}

    # a process that starts purges at once
    async with client_of(create_app(make_settings("muster_command"))):
        await aeventually(purged, what="what is over is purged")
    kept = {row["id"] for row in owner.execute("SELECT id FROM identity.sessions").fetchall()}
    assert kept == {logins[1].session, logins[3].session}
