"""Who logs in from a device that did so before is not held up by anybody's guesses, not even from the same address."""

from typing import Any

import httpx
import psycopg
import pytest

from command_api.app import create_app
from tests.apps import client_of
from tests.calls import create
from tests.databases import MakeSettings
from tests.rotations import NEW_INDEX_KEY, index_keys
from tests.tokens import EMAIL_INDEX_KEY

Owner = psycopg.Connection[dict[str, Any]]
ADA = "ada@example.com"
PASSWORD = "correct horse battery"
TRIES = 3


async def log_in(client: httpx.AsyncClient, password: str = PASSWORD, **fields: str) -> httpx.Response:
    return await client.post("/login", data={"username": ADA, "password": password, **fields})


async def guess_until_delayed(client: httpx.AsyncClient, **fields: str) -> None:
    answers = [(await log_in(client, "wrong", **fields)).status_code for _ in range(TRIES + 1)]
    assert answers == [401] * TRIES + [429]


@pytest.mark.parametrize("besieged", [False, True])
async def test_a_known_device_gets_in_while_its_address_is_delayed(
    make_settings: MakeSettings, owner: Owner, *, besieged: bool
) -> None:
    async with client_of(create_app(make_settings(guesses_per_account=TRIES))) as client:
        await create(client, ADA, password=PASSWORD)
        device = (await log_in(client)).json()["device_token"]

        await guess_until_delayed(client)
        if besieged:
            owner.execute("UPDATE identity.guesses SET failures = 5000, next_at = now() + interval '15 min'")
        assert (await log_in(client)).status_code == 429
        again = await log_in(client, device_token=device)
        assert again.status_code == 200
        assert again.json()["device_token"] == device
        # it took nothing from the others' delay
        assert (await log_in(client)).status_code == 429


async def test_a_stolen_device_token_gives_no_more_guesses_than_an_address(make_settings: MakeSettings) -> None:
    async with client_of(create_app(make_settings(guesses_per_account=TRIES))) as client:
        await create(client, ADA, password=PASSWORD)
        device = (await log_in(client)).json()["device_token"]
        await guess_until_delayed(client, device_token=device)
        assert (await log_in(client)).status_code == 200


async def test_a_device_token_of_another_account_counts_for_nothing(make_settings: MakeSettings) -> None:
    async with client_of(create_app(make_settings(guesses_per_account=TRIES))) as client:
        await create(client, ADA, password=PASSWORD)
        await create(client, "eve@example.com", password=PASSWORD)
        eves = await client.post("/login", data={"username": "eve@example.com", "password": PASSWORD})
        await guess_until_delayed(client, device_token=eves.json()["device_token"])
        assert (await log_in(client)).status_code == 429


async def test_a_browser_keeps_its_device_as_a_cookie_that_a_logout_leaves(make_settings: MakeSettings) -> None:
    async with client_of(create_app(make_settings(guesses_per_account=TRIES))) as client:
        await create(client, ADA, password=PASSWORD)
        origin = {"Origin": "http://muster"}
        form = {"username": ADA, "password": PASSWORD}
        answer = await client.post("/login?cookies=true", data=form, headers=origin)
        assert answer.status_code == 200
        assert "device_token" not in answer.json()
        cookie = next(line for line in answer.headers.get_list("set-cookie") if "device" in line)
        name, _, value = cookie.partition(";")[0].partition("=")
        assert name == "__Host-muster-device"
        assert "HttpOnly" in cookie
        assert "Secure" in cookie

        await guess_until_delayed(client)
        known = {**origin, "Cookie": f"{name}={value}"}
        assert (await client.post("/login?cookies=true", data=form, headers=known)).status_code == 200


async def test_a_device_is_known_when_the_key_of_its_token_has_been_followed_by_another(
    make_settings: MakeSettings,
) -> None:
    async with client_of(create_app(make_settings(**index_keys(EMAIL_INDEX_KEY)))) as client:
        await create(client, ADA, password=PASSWORD)
        device = (await log_in(client)).json()["device_token"]
    switched = make_settings(guesses_per_account=TRIES, **index_keys(NEW_INDEX_KEY, EMAIL_INDEX_KEY))
    async with client_of(create_app(switched)) as client:
        await guess_until_delayed(client)
        assert (await log_in(client)).status_code == 429
        again = await log_in(client, device_token=device)
        assert again.status_code == 200
        # one of the current key: the former may go
        assert again.json()["device_token"] != device
        assert (await log_in(client, device_token=again.json()["device_token"])).status_code == 200
