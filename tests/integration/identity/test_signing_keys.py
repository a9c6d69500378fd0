"""Signing keys: made, followed, rotated and revoked while both APIs go on."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jwt
import psycopg
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from psycopg.rows import dict_row

from command_api.app import create_app as create_command_app
from events.keyring import Kek
from identity.signing_keys import (
    LONGEST_TOKEN,
    KeyRecord,
    all_keys,
    insert_first,
    insert_next,
    kid_of,
    new_key,
    open_key,
    revoke,
)
from query_api.app import create_app as create_query_app
from runtime.database import Connection, Row
from tests.apps import client_of
from tests.calls import codes
from tests.databases import MakeSettings, as_role
from tests.plain_http import PLAIN
from tests.processes import StartProcess
from tests.sessions import LoggedIn, log_in, refresh, register, tokens_in
from tests.tokens import KEK, KID, SIGNING_KEY
from tests.waiting import aeventually, eventually

Owner = psycopg.Connection[dict[str, Any]]
ADA = "ada@example.com"


class Apis(NamedTuple):
    """Two instances of each API, on a database that no instance has made a key in."""

    command: httpx.AsyncClient
    other_command: httpx.AsyncClient
    query: httpx.AsyncClient
    other_query: httpx.AsyncClient


@pytest.fixture
async def keyless(make_settings: MakeSettings, owner: Owner) -> None:
    """There is a user who can log in, and there was never a key."""
    async with client_of(create_command_app(make_settings("muster_command"))) as client:
        await register(client, ADA, "operator")
    owner.execute("DELETE FROM identity.signing_keys")


@pytest.fixture
async def apis(keyless: None, make_settings: MakeSettings) -> AsyncIterator[Apis]:  # noqa: ARG001 - it comes first
    commands = [create_command_app(make_settings("muster_command")) for _ in range(2)]
    queries = [create_query_app(make_settings("muster_query")) for _ in range(2)]
    async with AsyncExitStack() as stack:
        clients = await asyncio.gather(*(stack.enter_async_context(client_of(app)) for app in (*commands, *queries)))
        yield Apis(*clients)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    """As the command role, which the keys' own commands act as."""
    async with await psycopg.AsyncConnection[Row].connect(
        as_role(database_url, "muster_command"), autocommit=True, row_factory=dict_row
    ) as connection:
        yield connection


async def ready(apis: Apis) -> None:
    for api in apis:

        async def is_ready(api: httpx.AsyncClient = api) -> bool:
            return (await api.get("/readyz")).status_code == 200

        await aeventually(is_ready, what="the instance is ready")


async def jwks(api: httpx.AsyncClient) -> dict[str, dict[str, str]]:
    answer = await api.get("/.well-known/jwks.json")
    assert answer.status_code == 200, answer.text
    return {key["kid"]: key for key in answer.json()["keys"]}


def kid(login: LoggedIn) -> str:
    header = jwt.get_unverified_header(login.access)
    assert header.keys() == {"alg", "typ", "kid"}
    return header["kid"]


async def admits(api: httpx.AsyncClient, login: LoggedIn) -> bool:
    """Whether the token opens a route that this instance has."""
    answer = await api.get("/sessions", headers=login.headers)
    if answer.status_code == 404:
        answer = await api.get("/users", headers=login.headers)
    assert answer.status_code in {200, 401}, answer.text
    return answer.status_code == 200


async def statuses(apis: Apis, login: LoggedIn) -> list[bool]:
    return [await admits(api, login) for api in apis]


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def test_instances_that_start_together_make_one_key_that_all_trust(apis: Apis, owner: Owner) -> None:
    await ready(apis)
    logins = [await log_in(api, ADA) for api in (apis.command, apis.other_command)]
    for login in logins:
        assert await statuses(apis, login) == [True] * 4
    found = owner.execute("SELECT kid, verifies_until FROM identity.signing_keys").fetchall()
    assert found == [{"kid": kid(logins[0]), "verifies_until": None}]
    assert kid(logins[1]) == kid(logins[0]) != KID
    assert [list(await jwks(api)) for api in apis] == [[kid(logins[0])]] * 4


@pytest.mark.usefixtures("keyless")
async def test_of_many_first_keys_one_is_stored(database_url: str, owner: Owner) -> None:
    async def insert() -> None:
        async with await psycopg.AsyncConnection[Row].connect(
            as_role(database_url, "muster_command"), autocommit=True, row_factory=dict_row
        ) as connection:
            await insert_first(connection, new_key(Kek(KEK)))

    await asyncio.gather(*(insert() for _ in range(10)))
    found = owner.execute("SELECT signs_from <= now() AS signs FROM identity.signing_keys").fetchall()
    assert found == [{"signs": True}]


@pytest.mark.usefixtures("keyless")
async def test_the_query_api_makes_no_key(make_settings: MakeSettings, owner: Owner) -> None:
    async with client_of(create_query_app(make_settings("muster_query"))) as client:

        async def looked() -> bool:
            return "no signing key" in (await client.get("/readyz")).json()["detail"]

        await aeventually(looked, what="it has looked", timeout=5)
        assert await jwks(client) == {}
    assert owner.execute("SELECT 1 FROM identity.signing_keys").fetchall() == []


@pytest.mark.usefixtures("keyless")
async def test_a_key_is_stored_wrapped_and_never_in_the_clear(make_settings: MakeSettings, owner: Owner) -> None:
    async with client_of(create_command_app(make_settings("muster_command"))) as client:

        async def stored() -> list[dict[str, Any]]:
            return owner.execute("SELECT *, t::text AS everything FROM identity.signing_keys t").fetchall()

        row = (await aeventually(stored, what="a key is made"))[0]
        assert await client.get("/livez")
    private = open_key(row["wrapped"], Kek(KEK))
    assert private.public_key().public_bytes_raw() == row["public_key"]
    assert (row["kid"], row["kek_id"]) == (kid_of(row["public_key"]), Kek(KEK).id)
    seed = private.private_bytes_raw()
    assert row["wrapped"].hex() in row["everything"]
    assert seed.hex() not in row["everything"]
    assert seed not in row["wrapped"]


async def test_the_published_keys_tell_nothing_private_and_agree_on_every_instance(
    commands: httpx.AsyncClient, queries: httpx.AsyncClient
) -> None:
    for client in (commands, queries):
        del client.headers["authorization"]
        answer = await client.get("/.well-known/jwks.json")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "public, max-age=60"
        assert answer.json() == {
            "keys": [
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "use": "sig",
                    "alg": "EdDSA",
                    "kid": kid_of(SIGNING_KEY.public_key().public_bytes_raw()),
                    "x": base64.urlsafe_b64encode(SIGNING_KEY.public_key().public_bytes_raw()).rstrip(b"=").decode(),
                }
            ]
        }


async def test_any_service_can_verify_a_token_from_the_published_keys(
    commands: httpx.AsyncClient, queries: httpx.AsyncClient
) -> None:
    user = await register(commands, ADA)
    login = await log_in(commands, ADA)
    for client in (commands, queries):
        key = (await jwks(client))[kid(login)]
        # by hand, from RFC 7515 and RFC 8037 alone
        header, payload, signature = login.access.split(".")
        public = Ed25519PublicKey.from_public_bytes(decoded(key["x"]))
        public.verify(decoded(signature), f"{header}.{payload}".encode())
        with pytest.raises(InvalidSignature):
            public.verify(decoded(signature), f"{header}.{payload}x".encode())
        assert json.loads(decoded(header)) == {"alg": "EdDSA", "typ": "at+jwt", "kid": key["kid"]}
        claims = json.loads(decoded(payload))
        assert {name: claims[name] for name in ("iss", "aud", "sub", "client_id", "scope", "sid")} == {
            "iss": "urn:muster",
            "aud": "urn:muster:users",
            "sub": str(user),
            "client_id": "muster",
            "scope": "self",
            "sid": str(login.session),
        }
        assert claims["exp"] - claims["iat"] == 600
        # as a library does it
        assert jwt.decode(login.access, jwt.PyJWK(key), algorithms=["EdDSA"], audience="urn:muster:users") == claims
    assert claims.keys() == {"iss", "aud", "sub", "client_id", "scope", "sid", "exp", "iat", "jti", "rev"}


async def test_a_rotation_is_no_outage(apis: Apis, connection: Connection, owner: Owner) -> None:
    await ready(apis)
    old = await log_in(apis.command, ADA)
    done = asyncio.Event()
    refused: list[str] = []
    asked = 0

    async def go_on(api: httpx.AsyncClient, login: LoggedIn) -> None:
        nonlocal asked
        while not done.is_set():
            asked += 1
            if not await admits(api, login):
                refused.append(kid(login))
            await asyncio.sleep(0.005)

    async def log_in_often(api: httpx.AsyncClient, seen: list[LoggedIn]) -> None:
        while not done.is_set():
            seen.append(await log_in(api, ADA))
            # a new token is good everywhere at once, whoever signed it
            refused.extend([kid(seen[-1])] * (await statuses(apis, seen[-1])).count(False))

    made: list[LoggedIn] = []
    working = [
        *(asyncio.create_task(go_on(api, old)) for api in apis),
        *(asyncio.create_task(log_in_often(api, made)) for api in (apis.command, apis.other_command)),
    ]
    new = new_key(Kek(KEK))
    await insert_next(connection, new, signs_in=60)

    async def published() -> bool:
        return all([{kid(old), new.kid} == set(await jwks(api)) for api in apis])

    async def somebody_logged_in() -> bool:
        return len(made) > 0

    await aeventually(published, what="both keys are published by all", timeout=5)
    await aeventually(somebody_logged_in, what="a login meanwhile")
    # published, and not used yet
    assert {kid(login) for login in made} == {kid(old)}
    first_new = len(made)
    owner.execute("UPDATE identity.signing_keys SET signs_from = now() WHERE kid = %s", (new.kid,))

    async def taken_over() -> bool:
        return len(made) > first_new + 4 and all(kid(login) == new.kid for login in made[-4:])

    await aeventually(taken_over, what="the new key signs", timeout=10)
    later = await log_in(apis.other_command, ADA)
    assert kid(later) == new.kid
    carried_on = tokens_in(await refresh(apis.command, old.refresh))
    assert kid(carried_on) == new.kid
    assert await statuses(apis, old) == await statuses(apis, carried_on) == [True] * 4
    assert all([{kid(old), new.kid} == set(await jwks(api)) for api in apis])
    done.set()
    await asyncio.gather(*working)
    assert asked > 50
    assert refused == []
    # the old one goes when no token of its can be alive
    row = owner.execute(
        "SELECT extract(epoch FROM verifies_until - now()) AS rest FROM identity.signing_keys WHERE kid = %s",
        (kid(old),),
    ).fetchall()[0]
    assert LONGEST_TOKEN < row["rest"] <= LONGEST_TOKEN + 60
    owner.execute("UPDATE identity.signing_keys SET verifies_until = now() WHERE kid = %s", (kid(old),))

    async def gone() -> bool:
        return all([{new.kid} == set(await jwks(api)) for api in apis])

    await aeventually(gone, what="the old key is gone everywhere", timeout=5)
    assert await statuses(apis, old) == [False] * 4
    assert await statuses(apis, carried_on) == [True] * 4


async def test_what_a_revoked_key_signed_is_void_and_logins_go_on_with_a_new_one(
    apis: Apis, connection: Connection, owner: Owner
) -> None:
    await ready(apis)
    logins = [await log_in(api, ADA) for api in (apis.command, apis.other_command)]
    for login in logins:
        assert await statuses(apis, login) == [True] * 4
    assert await revoke(connection, kid(logins[0]))
    assert not await revoke(connection, kid(logins[0]))
    assert not await revoke(connection, "unheard-of")
    for api in apis:
        for login in logins:

            async def refused(api: httpx.AsyncClient = api, login: LoggedIn = login) -> bool:
                return not await admits(api, login)

            await aeventually(refused, what="the token is void", timeout=2)

    async def signed_anew() -> LoggedIn | None:
        answer = await refresh(apis.command, logins[0].refresh)
        if answer.status_code == 503:
            assert codes(answer, 503) == ["unavailable"]
            return None
        return tokens_in(answer)

    # the sessions are as good as before: it was a key that was lost, no refresh token
    carried_on = await aeventually(signed_anew, what="there is a new key", timeout=5)
    assert carried_on is not None
    assert kid(carried_on) != kid(logins[0])
    # at once, and everywhere: a key that signs is known to all
    assert await statuses(apis, carried_on) == [True] * 4
    others = [await log_in(apis.other_command, ADA), tokens_in(await refresh(apis.other_command, logins[1].refresh))]
    assert {kid(other) for other in others} == {kid(carried_on)}
    assert [list(await jwks(api)) for api in apis] == [[kid(carried_on)]] * 4
    row = owner.execute(
        "SELECT extract(epoch FROM signs_from - published_at) AS known FROM identity.signing_keys WHERE kid = %s",
        (kid(carried_on),),
    ).fetchall()[0]
    assert row["known"] >= 0.9


async def test_a_key_revoked_after_a_rotation_is_replaced_by_a_new_one(
    apis: Apis, connection: Connection, owner: Owner
) -> None:
    """The retired one fills in for a moment; were it to stay, its end would end every token at once."""
    await ready(apis)
    retired = kid(await log_in(apis.command, ADA))
    second = new_key(Kek(KEK))
    await insert_next(connection, second, signs_in=0)

    async def signed_by(expected: str) -> bool:
        return kid(await log_in(apis.command, ADA)) == expected

    await aeventually(lambda: signed_by(second.kid), what="the second key signs", timeout=5)
    assert await revoke(connection, second.kid)

    async def third() -> str | None:
        found = owner.execute("SELECT kid FROM identity.signing_keys WHERE verifies_until IS NULL").fetchall()
        return found[0]["kid"] if found else None

    made = await aeventually(third, what="a third key is made", timeout=5)
    assert made not in {retired, second.kid, None}
    await aeventually(lambda: signed_by(str(made)), what="the third key signs", timeout=5)
    assert await statuses(apis, await log_in(apis.other_command, ADA)) == [True] * 4
    found = owner.execute("SELECT count(*) AS keys FROM identity.signing_keys").fetchone()
    assert found == {"keys": 3}


async def test_keys_are_listed_with_their_times(connection: Connection) -> None:
    key = new_key(Kek(KEK))
    await insert_next(connection, key, signs_in=60)
    first, second = await all_keys(connection)
    assert isinstance(first, KeyRecord)
    assert (first.kid, second.kid, second.public_key) == (KID, key.kid, key.public_key)
    assert first.verifies_until is not None
    assert second.verifies_until is None
    assert (second.signs_from - second.published_at).total_seconds() == 60
    assert (first.verifies_until - second.signs_from).total_seconds() == LONGEST_TOKEN


def test_the_wrong_kek_is_told_and_nothing_is_let_through_and_nothing_crashes(
    start_process: StartProcess, tmp_path: Path, owner: Owner
) -> None:
    other = tmp_path / "another-kek"
    other.write_text(base64.b64encode(b"another key-encryption key, 32 b").decode())
    process = start_process("command_api", kek_file=other, broker=False)
    right = start_process("command_api", broker=False).wait_until_ready()

    def unready() -> httpx.Response | None:
        assert process.popen.poll() is None
        try:
            answer = httpx.get(f"{process.url}/readyz", verify=PLAIN, trust_env=False)
        except httpx.TransportError:
            return None
        return answer if answer.status_code == 503 else None

    answer = eventually(unready, what="it answers that it is not ready", timeout=60)
    assert answer is not None
    assert codes(answer, 503) == ["identity"]
    with process.client() as client:
        for answer in (
            client.get("/sessions"),
            client.post("/users", json={"email": ADA}),
            client.post("/login", data={"username": ADA, "password": "x"}),
            client.post("/refresh", data={"refresh_token": "x"}),
            client.get("/.well-known/jwks.json"),
        ):
            assert codes(answer, 503) == ["unavailable"]
        assert client.get("/livez").status_code == 200
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    told = [line for line in lines if line["event"].startswith("keys and revocations cannot be read")]
    # once, however often it is tried
    assert len(told) == 1
    assert "KEK_FILE" in told[0]["reason"]
    assert Kek(b"another key-encryption key, 32 b").id in told[0]["reason"]
    assert not [line for line in lines if line["level"] in {"error", "critical"}]
    assert process.popen.poll() is None
    with right.client() as client:
        assert client.get("/sessions").status_code == 200
    assert owner.execute("SELECT kid FROM identity.signing_keys").fetchall() == [{"kid": KID}]
    assert process.stop() == 0
