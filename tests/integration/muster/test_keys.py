import base64
import os
from typing import Any

import httpx
import jwt
import psycopg
import pytest

from tests.calls import create
from tests.integration.muster.conftest import Muster
from tests.tokens import KID
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]

PASSWORD = "a lighthouse in the fog"


async def published(client: httpx.AsyncClient) -> set[str]:
    return {key["kid"] for key in (await client.get("/.well-known/jwks.json")).json()["keys"]}


async def signer(client: httpx.AsyncClient) -> str | None:
    """The key of a token that is issued now; None when none is."""
    answer = await client.post("/login", data={"username": "ada@example.com", "password": PASSWORD})
    token = answer.json().get("access_token")
    return None if token is None else jwt.get_unverified_header(token)["kid"]


async def until_signed_by(client: httpx.AsyncClient, kid: str) -> None:
    async def signs() -> bool:
        return await signer(client) == kid

    await aeventually(signs, what=f"{kid} signs", timeout=10)


@pytest.fixture
async def commands(commands: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client of the command API, where a user may log in."""
    await create(commands, password=PASSWORD)
    return commands


async def rotate(muster: Muster, *options: str) -> str:
    told = await muster("keys", "rotate", *options)
    assert told.status == 0, told.stderr
    kid = told.stdout.split()[0]
    assert [(line["event"], line["kid"]) for line in told.records] == [("keys.rotated", kid)]
    return kid


async def test_a_new_key_is_published_at_once_and_signs_later(muster: Muster, commands: httpx.AsyncClient) -> None:
    kid = await rotate(muster)

    async def known() -> bool:
        return await published(commands) == {KID, kid}

    await aeventually(known, what="the new key is published", timeout=2)
    assert await signer(commands) == KID
    listed = (await muster("keys", "list")).stdout.splitlines()
    assert listed[0].startswith(f"{KID}  signs since 1970-01-01T00:00:00Z")
    assert listed[1].startswith(f"{kid}  published, signs from 20")


async def test_a_key_that_took_over_leaves_the_tokens_of_the_one_before_valid(
    muster: Muster, commands: httpx.AsyncClient
) -> None:
    kid = await rotate(muster, "--after", "1")
    await until_signed_by(commands, kid)
    assert (await commands.get("/sessions")).status_code == 200
    listed = (await muster("keys", "list")).stdout.splitlines()
    assert listed[0].startswith(f"{KID}  verifies until 20")
    assert listed[1].startswith(f"{kid}  signs since 20")


async def test_the_tokens_of_a_key_that_is_revoked_are_void(muster: Muster, commands: httpx.AsyncClient) -> None:
    kid = await rotate(muster, "--after", "1")
    await until_signed_by(commands, kid)
    told = await muster("keys", "revoke", KID)
    assert told.stdout.startswith(f"{KID} is void: within a second no token that it signed is valid any more.")
    assert [(line["event"], line["kid"]) for line in told.records] == [("keys.revoked", KID)]

    async def void() -> bool:
        return (await commands.get("/sessions")).status_code == 401

    await aeventually(void, what="the token is void", timeout=2)
    assert await signer(commands) == kid
    assert (await muster("keys", "list")).stdout.startswith(f"{KID}  void since 20")
    again = await muster("keys", "revoke", KID)
    assert again.refusal == (1, f"muster: no living key has the id {KID}: `muster keys list` names them")


async def test_the_only_key_that_signs_is_not_revoked_unasked(muster: Muster, commands: httpx.AsyncClient) -> None:
    for _ in range(2):
        status, said = (await muster("keys", "revoke", KID)).refusal
        assert status == 1
        assert said.startswith(f"muster: no other key than {KID} signs now: make one with `muster keys rotate --after")
        # one that is published only does not help yet
        await rotate(muster, "--after", "3600")
    assert await signer(commands) == KID


async def test_the_last_key_can_be_revoked_by_force_and_logins_go_on_with_a_new_one(
    muster: Muster, commands: httpx.AsyncClient
) -> None:
    told = await muster("keys", "revoke", "--force", KID)
    assert told.stdout.endswith("There is no key now: a running command API makes one at once.\n")

    async def another() -> bool:
        return await signer(commands) not in {None, KID}

    await aeventually(another, what="another key signs", timeout=5)


async def test_by_force_nobody_logs_in_until_the_next_key_signs(muster: Muster, commands: httpx.AsyncClient) -> None:
    await rotate(muster, "--after", "3600")
    told = await muster("keys", "revoke", "--force", KID)
    assert "No key signs before 20" in told.stdout

    async def nobody() -> bool:
        return await signer(commands) is None

    await aeventually(nobody, what="nobody logs in", timeout=2)
    await until_signed_by(commands, await rotate(muster, "--after", "1"))


async def test_a_kid_that_begins_with_a_dash_goes_behind_two(muster: Muster) -> None:
    told = await muster("keys", "revoke", "--", "-none")
    assert told.refusal == (1, "muster: no living key has the id -none: `muster keys list` names them")


async def test_a_key_that_no_process_could_open_is_not_published(muster: Muster, owner: Owner) -> None:
    status, said = (await muster("keys", "rotate", KEK=base64.b64encode(os.urandom(32)).decode())).refusal
    assert status == 2
    assert said.startswith("muster: this KEK is ")
    assert owner.execute("SELECT kid FROM identity.signing_keys").fetchall() == [{"kid": KID}]


async def test_without_a_key_there_is_nothing_to_rotate(muster: Muster, owner: Owner) -> None:
    owner.execute("DELETE FROM identity.signing_keys")
    status, said = (await muster("keys", "rotate")).refusal
    assert status == 1
    assert said == "muster: there is no key to take over from: a running command API makes the first one"
    assert (await muster("keys", "list")).stdout == ""


@pytest.mark.parametrize("after", ["0", "86401"])
async def test_a_key_signs_soon_but_not_before_all_know_it(muster: Muster, after: str) -> None:
    assert (await muster("keys", "rotate", "--after", after)).refusal[0] == 2
