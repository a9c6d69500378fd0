"""Refresh tokens: good once, answered alike for a few seconds, and the end of their session when they come again."""

import base64
import secrets
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import jwt
import psycopg
import pytest
from psycopg import sql

from command_api.app import create_app
from identity.refresh_tokens import PREFIX, RefreshToken
from identity.roles import ROLES
from runtime.failures import Unavailable
from runtime.ids import new_id
from tests.apps import client_of
from tests.calls import codes
from tests.databases import MakeSettings
from tests.sessions import PASSWORD, LoggedIn, log_in, refresh, register, tokens_in
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]
ADA = "ada@example.com"


@pytest.fixture
async def ada(commands: httpx.AsyncClient) -> UUID:
    return await register(commands, ADA)


def refused(answer: httpx.Response, error: str = "invalid_grant", status: int = 401) -> None:
    """Assert a refusal: a problem that has the members of OAuth's errors too (RFC 6749, section 5.2)."""
    assert codes(answer, status) == [error]
    body = answer.json()
    assert body["error"] == error
    assert body["error_description"] == body["detail"]
    assert body["type"] == f"urn:muster:problem:{error}"
    assert answer.headers["cache-control"] == "no-store"
    assert "access_token" not in answer.text


def claims(login: LoggedIn) -> dict[str, Any]:
    return jwt.decode(login.access, options={"verify_signature": False})


def scopes(login: LoggedIn) -> set[str]:
    return set(claims(login)["scope"].split())


def grace_is_over(owner: Owner, login: LoggedIn) -> None:
    owner.execute(
        "UPDATE identity.sessions SET rotated_at = rotated_at - interval '11 s' WHERE id = %s", (login.session,)
    )


async def works(client: httpx.AsyncClient, login: LoggedIn) -> bool:
    answer = await client.get("/sessions", headers=login.headers)
    assert answer.status_code in {200, 401}, answer.text
    return answer.status_code == 200


async def until_void(client: httpx.AsyncClient, *logins: LoggedIn) -> None:
    for login in logins:

        async def void(login: LoggedIn = login) -> bool:
            return not await works(client, login)

        await aeventually(void, what="the access token is void", timeout=5)


@pytest.mark.usefixtures("ada")
async def test_a_refresh_token_is_exchanged_for_the_next(commands: httpx.AsyncClient) -> None:
    first = await log_in(commands, ADA)
    answer = await refresh(commands, first.refresh)
    second = tokens_in(answer)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert {name: answer.json()[name] for name in ("token_type", "expires_in", "scope")} == {
        "token_type": "bearer",
        "expires_in": 600,
        "scope": "self",
    }
    assert len({first.refresh, first.access, second.refresh, second.access}) == 4
    assert first.session == second.session == UUID(claims(second)["sid"])
    assert claims(first)["jti"] != claims(second)["jti"]
    # a refresh takes nothing from a token that was issued before
    assert await works(commands, first)
    assert await works(commands, second)
    assert tokens_in(await refresh(commands, second.refresh)).session == first.session


@pytest.mark.usefixtures("ada")
async def test_a_session_is_carried_on_many_times(commands: httpx.AsyncClient, owner: Owner) -> None:
    login = await log_in(commands, ADA)
    seen = {login.refresh}
    for _ in range(20):
        login = tokens_in(await refresh(commands, login.refresh))
        seen.add(login.refresh)
    assert len(seen) == 21
    assert owner.execute("SELECT count(*) AS sessions FROM identity.sessions").fetchone() == {"sessions": 1}


@pytest.mark.usefixtures("ada")
async def test_a_lost_answer_is_given_again(commands: httpx.AsyncClient) -> None:
    first = await log_in(commands, ADA)
    answers = [tokens_in(await refresh(commands, first.refresh)) for _ in range(3)]
    assert len({answer.refresh for answer in answers}) == 1
    assert len({answer.access for answer in answers}) == 3
    for answer in answers:
        assert await works(commands, answer)
    assert tokens_in(await refresh(commands, answers[0].refresh)).refresh != answers[0].refresh


@pytest.mark.usefixtures("ada")
async def test_another_instance_gives_the_lost_answer_too(
    commands: httpx.AsyncClient, make_settings: MakeSettings
) -> None:
    first = await log_in(commands, ADA)
    second = tokens_in(await refresh(commands, first.refresh))
    async with client_of(create_app(make_settings("muster_command"))) as elsewhere:
        assert tokens_in(await refresh(elsewhere, first.refresh)).refresh == second.refresh
        third = tokens_in(await refresh(elsewhere, second.refresh))
    assert tokens_in(await refresh(commands, second.refresh)).refresh == third.refresh


@pytest.mark.usefixtures("ada")
async def test_after_the_grace_reuse_ends_the_session_and_voids_its_tokens(
    commands: httpx.AsyncClient, owner: Owner
) -> None:
    first, bystander = await log_in(commands, ADA), await log_in(commands, ADA)
    second = tokens_in(await refresh(commands, first.refresh))
    grace_is_over(owner, first)
    refused(await refresh(commands, first.refresh))
    # whoever of the two holders is the thief: both are out
    refused(await refresh(commands, second.refresh))
    await until_void(commands, first, second)
    assert await works(commands, bystander)
    tokens_in(await refresh(commands, bystander.refresh))


@pytest.mark.usefixtures("ada")
async def test_no_grace_is_no_second_answer(make_settings: MakeSettings) -> None:
    async with client_of(create_app(make_settings("muster_command", refresh_grace=0))) as strict:
        first = await log_in(strict, ADA)
        second = tokens_in(await refresh(strict, first.refresh))
        refused(await refresh(strict, first.refresh))
        refused(await refresh(strict, second.refresh))


@pytest.mark.usefixtures("ada")
async def test_a_token_two_generations_old_ends_the_session_at_once(commands: httpx.AsyncClient) -> None:
    first = await log_in(commands, ADA)
    second = tokens_in(await refresh(commands, first.refresh))
    third = tokens_in(await refresh(commands, second.refresh))
    refused(await refresh(commands, first.refresh))
    refused(await refresh(commands, third.refresh))
    await until_void(commands, first, second, third)


@pytest.mark.usefixtures("ada")
async def test_a_forged_token_of_the_family_ends_the_session(commands: httpx.AsyncClient) -> None:
    login = await log_in(commands, ADA)
    forged = RefreshToken(session=login.session, family=login.token.family, secret=secrets.token_bytes(32))
    refused(await refresh(commands, forged.text))
    refused(await refresh(commands, login.refresh))
    await until_void(commands, login)


@pytest.mark.usefixtures("ada")
async def test_who_knows_only_the_id_of_a_session_cannot_end_it(commands: httpx.AsyncClient, owner: Owner) -> None:
    login = await log_in(commands, ADA)
    token = login.token
    for stranger in (
        RefreshToken.first(login.session),
        RefreshToken(session=login.session, family=secrets.token_bytes(16), secret=token.secret),
        # the hashes, by whoever has read the database
        RefreshToken(session=login.session, family=token.family_hash[:16], secret=token.secret_hash),
    ):
        refused(await refresh(commands, stranger.text))
        assert (await commands.post("/logout", data={"refresh_token": stranger.text})).status_code == 204
    assert owner.execute("SELECT number FROM identity.revocation_head").fetchone() == {"number": 0}
    assert await works(commands, login)
    tokens_in(await refresh(commands, login.refresh))


@pytest.mark.usefixtures("ada")
async def test_a_session_ends_in_its_time_however_often_it_was_used(commands: httpx.AsyncClient, owner: Owner) -> None:
    login = await log_in(commands, ADA)
    shown = owner.execute("SELECT expires_at, expires_at - created_at AS lifetime FROM identity.sessions").fetchone()
    assert shown is not None
    assert shown["lifetime"].total_seconds() == 30 * 86400
    login = tokens_in(await refresh(commands, login.refresh))
    assert owner.execute("SELECT expires_at FROM identity.sessions").fetchone() == {"expires_at": shown["expires_at"]}
    owner.execute("UPDATE identity.sessions SET expires_at = now()")
    refused(await refresh(commands, login.refresh))
    assert (await commands.get("/sessions", headers=login.headers)).json() == {"sessions": []}


SPOILT: list[Callable[[str], str]] = [
    lambda _: "x",
    lambda _: PREFIX,
    lambda _: RefreshToken.first(new_id()).text,
    lambda token: token[:-1],
    lambda token: token[:40],
    lambda token: token + "A",
    lambda token: token + "\n",
    lambda token: f" {token}",
    lambda token: token.upper(),
    lambda token: token.removeprefix(PREFIX),
    lambda token: token[:40] + "é" + token[41:],
    lambda token: token[:40] + "\0" + token[41:],
    lambda token: token * 500,
    lambda token: base64.b64encode(token.encode()).decode(),
]


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.usefixtures("ada")
async def test_what_is_no_refresh_token_is_refused_and_harms_nothing(
    commands: httpx.AsyncClient, owner: Owner, spoil: Callable[[str], str]
) -> None:
    login = await log_in(commands, ADA)
    spoilt = spoil(login.refresh)
    refused(await refresh(commands, spoilt))
    refused(await commands.post("/refresh", json={"refresh_token": spoilt}))
    assert owner.execute("SELECT number FROM identity.revocation_head").fetchone() == {"number": 0}
    tokens_in(await refresh(commands, login.refresh))


@pytest.mark.usefixtures("ada")
async def test_an_access_token_is_no_refresh_token(commands: httpx.AsyncClient) -> None:
    login = await log_in(commands, ADA)
    refused(await refresh(commands, login.access))
    assert codes(await commands.get("/sessions", headers={"Authorization": f"Bearer {login.refresh}"}), 401) == [
        "invalid_token"
    ]


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        ({"data": {}}, 400, "invalid_request"),
        ({"data": {"refresh_token": ""}}, 400, "invalid_request"),
        ({"json": {}}, 400, "invalid_request"),
        ({"json": {"refresh_token": None}}, 400, "invalid_request"),
        ({"json": {"refresh_token": ""}}, 400, "invalid_request"),
        ({"json": {"refresh_token": 7}}, 400, "invalid_request"),
        ({"json": {"refresh_token": ["a"]}}, 400, "invalid_request"),
        ({"json": ["refresh_token"]}, 400, "invalid_request"),
        ({"json": "refresh_token"}, 400, "invalid_request"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "invalid_request"),
        ({"content": b"refresh_token=x"}, 415, "invalid_request"),
        ({"content": b"refresh_token=x", "headers": {"Content-Type": "text/plain"}}, 415, "invalid_request"),
        ({"data": {"refresh_token": ["a", "b"]}}, 400, "invalid_request"),
        ({"data": {"grant_type": "password", "refresh_token": "x"}}, 400, "unsupported_grant_type"),
        ({"data": {"grant_type": "authorization_code", "refresh_token": "x"}}, 400, "unsupported_grant_type"),
    ],
)
async def test_a_request_that_is_none_is_told_so_as_oauth_has_it(
    commands: httpx.AsyncClient, request_: dict[str, Any], status: int, error: str
) -> None:
    refused(await commands.post("/refresh", **request_), error, status)


@pytest.mark.usefixtures("ada")
async def test_a_form_and_json_are_taken_alike(commands: httpx.AsyncClient) -> None:
    login = await log_in(commands, ADA)
    forms = [{"grant_type": "refresh_token"}, {"unknown": "parameters are passed over"}]
    for fields in forms:
        login = tokens_in(await commands.post("/refresh", data={**fields, "refresh_token": login.refresh}))
    for fields in (*forms, {"unknown": {"of": "any type"}}, {"scope": None}):
        login = tokens_in(await commands.post("/refresh", json={**fields, "refresh_token": login.refresh}))
    content = f"refresh_token={login.refresh}".encode()
    for spelling in ("application/x-www-form-urlencoded; charset=UTF-8", "Application/X-WWW-Form-URLEncoded"):
        answer = await commands.post("/refresh", content=content, headers={"Content-Type": spelling})
        # the same token both times: the answer that was lost
        tokens_in(answer)


@pytest.mark.parametrize("ending", ["disabled", "deleted"])
async def test_a_user_who_may_not_log_in_may_not_refresh(commands: httpx.AsyncClient, ada: UUID, ending: str) -> None:
    first = await log_in(commands, ADA)
    second = tokens_in(await refresh(commands, first.refresh))
    if ending == "disabled":
        answer = await commands.patch(f"/users/{ada}", json={"status": "disabled"})
    else:
        answer = await commands.delete(f"/users/{ada}")
    assert answer.status_code == 200
    refused(await refresh(commands, second.refresh))
    refused(await refresh(commands, first.refresh))
    await until_void(commands, first, second)
    if ending == "disabled":
        assert (await commands.patch(f"/users/{ada}", json={"status": "active"})).status_code == 200
        # what was ended stays so
        refused(await refresh(commands, second.refresh))
        assert await works(commands, await log_in(commands, ADA))


async def test_a_new_password_ends_every_session(commands: httpx.AsyncClient, ada: UUID) -> None:
    logins = [await log_in(commands, ADA) for _ in range(3)]
    answer = await commands.patch(f"/users/{ada}", json={"password": "another heron, another quay"})
    assert answer.status_code == 200
    for login in logins:
        refused(await refresh(commands, login.refresh))
    await until_void(commands, *logins)


async def test_other_changes_of_a_user_leave_the_sessions_alone(
    commands: httpx.AsyncClient, owner: Owner, ada: UUID
) -> None:
    login = await log_in(commands, ADA)
    for change in (
        {"display_name": "Ada"},
        {"email": "ada@example.org"},
        {"attributes": {"a": 1}},
        {"roles": ["user"]},
    ):
        assert (await commands.patch(f"/users/{ada}", json=change)).status_code == 200
    assert owner.execute("SELECT number FROM identity.revocation_head").fetchone() == {"number": 0}
    assert await works(commands, login)
    tokens_in(await refresh(commands, login.refresh))


async def test_new_roles_are_in_the_next_access_token(commands: httpx.AsyncClient, ada: UUID) -> None:
    login = await log_in(commands, ADA)
    assert scopes(login) == {"self"}
    for roles in (["auditor"], ["admin"], ["operator", "user"], ["unheard-of"], [], ["user"]):
        assert (await commands.patch(f"/users/{ada}", json={"roles": roles})).status_code == 200
        before, login = login, tokens_in(await refresh(commands, login.refresh))
        assert scopes(login) == {scope for role in roles for scope in ROLES.get(role, ())}
        assert await works(commands, login)
        await until_void(commands, before)


async def test_what_was_asked_for_bounds_every_token_of_the_session(commands: httpx.AsyncClient, ada: UUID) -> None:
    assert (await commands.patch(f"/users/{ada}", json={"roles": ["admin"]})).status_code == 200
    login = await log_in(commands, ADA, scope="self users:read")
    for roles, expected in (
        (["admin"], {"self", "users:read"}),
        (["user"], {"self"}),
        (["unheard-of"], set[str]()),
        (["auditor", "operator"], {"self", "users:read"}),
    ):
        assert (await commands.patch(f"/users/{ada}", json={"roles": roles})).status_code == 200
        answer = await refresh(commands, login.refresh)
        login = tokens_in(answer)
        assert scopes(login) == expected == set(answer.json()["scope"].split())
    # a refresh cannot ask for more
    answer = await commands.post("/refresh", data={"refresh_token": login.refresh, "scope": "users:write ops"})
    assert scopes(tokens_in(answer)) == {"self", "users:read"}


@pytest.mark.usefixtures("ada")
async def test_nothing_in_the_database_is_a_token_that_could_be_used(commands: httpx.AsyncClient, owner: Owner) -> None:
    login = await log_in(commands, ADA)
    logins = [login]
    for _ in range(3):
        login = tokens_in(await refresh(commands, login.refresh))
        logins.append(login)
    tables = owner.execute("SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('identity', 'log')")
    found = {
        f"{row['schemaname']}.{row['tablename']}": owner.execute(
            sql.SQL("SELECT t::text AS row FROM {} t").format(sql.Identifier(row["schemaname"], row["tablename"]))
        ).fetchall()
        for row in tables.fetchall()
    }
    stored = "\n".join(row["row"] for rows in found.values() for row in rows)
    assert len(found["identity.sessions"]) == 1
    for login in logins:
        for secret in (login.token.family, login.token.secret):
            for written in (secret.hex(), base64.b64encode(secret).decode(), base64.urlsafe_b64encode(secret).decode()):
                assert written.rstrip("=") not in stored
        for text in (login.refresh, login.access, *login.access.split("."), PASSWORD):
            assert text not in stored
            assert text.encode().hex() not in stored
    # the hashes are there, of the living token and of the one before: this search would have found a token
    assert logins[-1].token.secret_hash.hex() in stored
    assert logins[-2].token.secret_hash.hex() in stored
    assert logins[0].token.family_hash.hex() in stored
    assert logins[0].token.secret_hash.hex() not in stored


@pytest.mark.usefixtures("ada")
async def test_what_cannot_be_answered_costs_no_token_and_begins_no_session(
    make_settings: MakeSettings, owner: Owner
) -> None:
    app = create_app(make_settings("muster_command"))

    async def cannot_sign() -> bool:
        try:
            return not app.state.door.trust.signer
        except Unavailable:
            return True

    async with client_of(app) as client:
        login = await log_in(client, ADA)
        owner.execute("UPDATE identity.signing_keys SET signs_from = now() + interval '1 hour'")
        await aeventually(cannot_sign, what="no key signs", timeout=5)
        assert codes(await client.get("/readyz"), 503) == ["identity"]
        assert codes(await refresh(client, login.refresh), 503) == ["unavailable"]
        assert codes(await client.post("/login", data={"username": ADA, "password": PASSWORD}), 503) == ["unavailable"]
        found = owner.execute("SELECT count(*) AS sessions, max(rotated_at) AS rotated_at FROM identity.sessions")
        assert found.fetchone() == {"sessions": 1, "rotated_at": None}
