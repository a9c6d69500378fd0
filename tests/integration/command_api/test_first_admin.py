import asyncio
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import Any

import httpx
import psycopg
import pytest

from command_api.app import create_app
from runtime.settings import BadSettings, Settings
from tests.apps import client_of
from tests.calls import create
from tests.databases import MakeSettings, as_role
from tests.processes import environment_of
from tests.proxy import proxy_to
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]

EMAIL = "Root@Example.com"
PASSWORD = "a lighthouse in the fog"
FIRST = {"first_admin_email": EMAIL, "first_admin_password": PASSWORD}


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings("muster_command", **FIRST)


async def settled(client: httpx.AsyncClient) -> None:
    """Wait until the process says that it is ready."""

    async def ready() -> bool:
        return (await client.get("/readyz")).status_code == 200

    await aeventually(ready, what="the process is ready", timeout=20)


async def may_log_in(client: httpx.AsyncClient, email: str = EMAIL, password: str = PASSWORD) -> bool:
    answer = await client.post("/login", data={"username": email, "password": password})
    if answer.status_code == 200:
        client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
    return answer.status_code == 200


def events(owner: Owner) -> list[dict[str, Any]]:
    return owner.execute("SELECT * FROM log.events ORDER BY position").fetchall()


async def test_the_first_start_makes_one_administrator_through_the_log(settings: Settings, owner: Owner) -> None:
    async with client_of(create_app(settings)) as client:
        await settled(client)
        assert await may_log_in(client)
        await create(client, "another@example.com", roles=["admin"])
    first, _ = events(owner)
    assert (first["position"], first["type"], first["version"]) == (1, "UserCreated", 1)
    assert first["metadata"]["actor"] == {"subject": "first-start", "kind": "operator"}
    assert first["data"]["record"]["roles"] == ["admin", "user"]
    assert PASSWORD not in str(first)


async def test_a_log_that_has_an_event_gets_none(settings: Settings, owner: Owner, make_settings: MakeSettings) -> None:
    async with client_of(create_app(make_settings("muster_command"))) as client:
        await create(client)
    async with client_of(create_app(settings)) as client:
        await settled(client)
        assert not await may_log_in(client)
    assert len(events(owner)) == 1


async def test_the_administrator_who_was_deleted_stays_so(settings: Settings, owner: Owner) -> None:
    async with client_of(create_app(settings)) as client:
        await settled(client)
        assert (await client.delete(f"/users/{events(owner)[0]['user_id']}")).status_code == 200
    async with client_of(create_app(settings)) as client:
        await settled(client)
        assert not await may_log_in(client)
    assert len(events(owner)) == 2


async def test_a_later_start_leaves_a_password_that_was_changed(settings: Settings, owner: Owner) -> None:
    async with client_of(create_app(settings)) as client:
        await settled(client)
        changed = await client.patch(f"/users/{events(owner)[0]['user_id']}", json={"password": "another lighthouse"})
        assert changed.status_code == 200
    async with client_of(create_app(settings)) as client:
        await settled(client)
        assert not await may_log_in(client)
        assert await may_log_in(client, password="another lighthouse")


async def test_instances_that_start_together_make_one_between_them(settings: Settings, owner: Owner) -> None:
    async with AsyncExitStack() as stack:
        clients = await asyncio.gather(*(stack.enter_async_context(client_of(create_app(settings))) for _ in range(4)))
        for client in clients:
            await settled(client)
            assert await may_log_in(client)
    assert len(events(owner)) == 1


async def test_a_database_that_is_away_is_waited_for(
    make_settings: MakeSettings, database_url: str, owner: Owner
) -> None:
    async with proxy_to(database_url) as (proxy, url):
        await proxy.refuse()
        settings = make_settings(database_url=as_role(url, "muster_command"), write_timeout=1.0, **FIRST)
        async with client_of(create_app(settings)) as client:
            unready = await client.get("/readyz")
            assert unready.status_code == 503
            assert unready.json()["parts"]["first admin"] == "is not there yet"
            assert (await client.get("/livez")).status_code == 200
            await proxy.start()
            await settled(client)
            assert await may_log_in(client)
    assert len(events(owner)) == 1


async def test_a_process_that_stops_meanwhile_stops_in_time(make_settings: MakeSettings) -> None:
    settings = make_settings(database_url="postgresql://127.0.0.1:1/nowhere", **FIRST)
    async with asyncio.timeout(10):
        async with client_of(create_app(settings)):
            pass


async def test_without_the_settings_there_is_no_such_part(make_settings: MakeSettings, owner: Owner) -> None:
    async with client_of(create_app(make_settings("muster_command"))) as client:
        await settled(client)
        assert "first admin" not in (await client.get("/readyz")).json()["parts"]
    assert events(owner) == []


@pytest.mark.parametrize(
    ("email", "password", "reason"),
    [
        ("nobody", PASSWORD, "FIRST_ADMIN_EMAIL: An email address must have an @-sign."),
        ("", PASSWORD, "FIRST_ADMIN_EMAIL: An email address must have an @-sign."),
        (f"{'x' * 250}@example.com", PASSWORD, "FIRST_ADMIN_EMAIL: String should have at most 254 characters"),
        (EMAIL, "abc", "FIRST_ADMIN_PASSWORD must have at least 8 characters"),
        (EMAIL, "password1", "FIRST_ADMIN_PASSWORD must not be one of the most common passwords"),
        (EMAIL, f"I am {EMAIL}", "FIRST_ADMIN_PASSWORD must not contain the user's e-mail address"),
    ],
)
def test_an_administrator_whom_nobody_could_make_is_a_bad_setting(
    make_settings: MakeSettings, email: str, password: str, reason: str
) -> None:
    with pytest.raises(BadSettings) as refused:
        create_app(make_settings("muster_command", first_admin_email=email, first_admin_password=password))
    assert str(refused.value).startswith(reason)
    assert "\n" not in str(refused.value)


def test_the_process_says_so_in_one_line_and_does_not_start(settings: Settings) -> None:
    started = subprocess.run(
        [sys.executable, "-m", "command_api"],
        env=os.environ | environment_of(settings) | {"FIRST_ADMIN_PASSWORD": "swordfish"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert started.returncode == 2
    assert started.stderr == "command-api: FIRST_ADMIN_PASSWORD must not be one of the most common passwords\n"
