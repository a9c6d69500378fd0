import re
from typing import Any

import httpx
import psycopg
import pytest

from tests.calls import create
from tests.integration.muster.conftest import Muster, Told
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]


def credentials(told: Told) -> dict[str, str]:
    """The lines that a command printed, as the fields of a login."""
    assert told.status == 0, told.stderr
    fields = dict(line.split("=", 1) for line in told.stdout.splitlines())
    assert fields.keys() == {"client_id", "client_secret"}
    assert re.fullmatch(r"mcs_[A-Za-z0-9_-]{43}", fields["client_secret"])
    assert fields["client_secret"] not in told.stderr
    return fields


async def make(muster: Muster, *scopes: str, name: str = "billing") -> dict[str, str]:
    wanted = [word for scope in scopes or ("users:read",) for word in ("--scope", scope)]
    return credentials(await muster("clients", "create", name, *wanted))


async def log_in(client: httpx.AsyncClient, fields: dict[str, str]) -> httpx.Response:
    return await client.post("/login", data={"grant_type": "client_credentials", **fields})


async def act_as(client: httpx.AsyncClient, fields: dict[str, str]) -> None:
    answer = await log_in(client, fields)
    assert answer.status_code == 200, answer.text
    client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"


async def until_void(client: httpx.AsyncClient) -> None:
    async def void() -> bool:
        return (await client.get("/sessions")).status_code == 401

    await aeventually(void, what="the token is void", timeout=2)


async def test_a_client_logs_in_with_what_was_printed_and_may_do_what_was_said(
    muster: Muster, commands: httpx.AsyncClient
) -> None:
    await act_as(commands, await make(muster, "users:read", "users:write"))
    user = await create(commands)
    assert (await commands.delete(f"/users/{user['id']}")).status_code == 200
    assert (await commands.post("/users", json={"email": "x@example.com", "roles": ["admin"]})).status_code == 403


async def test_only_a_hash_of_the_secret_is_kept(muster: Muster, owner: Owner) -> None:
    fields = await make(muster)
    [row] = owner.execute("SELECT * FROM identity.clients").fetchall()
    assert fields["client_secret"] not in str(row)
    assert len(row["secret_hash"]) == 32


async def test_the_list_names_clients_scopes_and_who_is_disabled(muster: Muster) -> None:
    report, billing = await make(muster, name="report"), await make(muster, "users:read", "ops")
    assert (await muster("clients", "disable", "report")).status == 0
    lines = (await muster("clients", "list")).stdout.splitlines()
    assert lines[0] == f"{billing['client_id']}  billing  ops users:read"
    assert lines[1].startswith(f"{report['client_id']}  report  users:read  disabled 20")


@pytest.mark.parametrize("by", ["name", "id"])
async def test_a_disabled_client_is_out_at_once_and_stays_out(
    muster: Muster, commands: httpx.AsyncClient, by: str
) -> None:
    fields = await make(muster)
    await act_as(commands, fields)
    client = fields["client_id"] if by == "id" else "billing"
    told = await muster("clients", "disable", client)
    assert told.stdout == f"billing ({fields['client_id']}) is disabled.\n"
    await until_void(commands)
    assert (await log_in(commands, fields)).status_code == 401
    assert (await muster("clients", "disable", client)).refusal == (1, "muster: billing is disabled already")
    assert (await muster("clients", "rotate", client)).refusal == (1, "muster: billing is disabled")


async def test_a_new_secret_takes_the_place_of_the_old_one_and_its_tokens(
    muster: Muster, commands: httpx.AsyncClient
) -> None:
    old = await make(muster)
    await act_as(commands, old)
    new = credentials(await muster("clients", "rotate", "billing"))
    assert new["client_id"] == old["client_id"]
    await until_void(commands)
    assert (await log_in(commands, old)).status_code == 401
    await act_as(commands, new)
    assert (await commands.get("/sessions")).status_code == 200


async def test_every_change_is_in_the_security_log(muster: Muster) -> None:
    created = await muster("clients", "create", "billing", "--scope", "ops", "--scope", "users:read")
    client = credentials(created)["client_id"]
    lines = [*created.records]
    for command in ("rotate", "disable"):
        lines += (await muster("clients", command, "billing")).records
    assert [(line["event"], line["client"]) for line in lines] == [
        ("client.created", client),
        ("client.rotated", client),
        ("client.disabled", client),
    ]
    assert lines[0]["scope"] == "ops users:read"


async def test_a_name_belongs_to_one_client(muster: Muster) -> None:
    await make(muster)
    again = await muster("clients", "create", "billing", "--scope", "ops")
    assert again.refusal == (1, "muster: another client has the name billing")


@pytest.mark.parametrize("name", ["", "a b", ".a", "x" * 65, "01900000-0000-7000-8000-00000000ad17"])
async def test_a_name_is_short_plain_and_no_id(muster: Muster, owner: Owner, name: str) -> None:
    status, said = (await muster("clients", "create", name, "--scope", "ops")).refusal
    assert status == 2
    assert said.startswith("muster: A name is of letters, digits")
    assert owner.execute("SELECT 1 FROM identity.clients").fetchall() == []


@pytest.mark.parametrize(
    ("scopes", "reason"),
    [
        (("--scope", "self"), "muster: The scope self is for users"),
        (("--scope", "users:fly"), "'users:fly' is not one of"),
        ((), "Missing option '--scope'"),
    ],
)
async def test_a_client_gets_scopes_that_there_are(
    muster: Muster, owner: Owner, scopes: tuple[str, ...], reason: str
) -> None:
    status, said = (await muster("clients", "create", "billing", *scopes)).refusal
    assert status == 2
    assert reason in said
    assert owner.execute("SELECT 1 FROM identity.clients").fetchall() == []


@pytest.mark.parametrize("command", ["rotate", "disable"])
@pytest.mark.parametrize("client", ["nobody", "01900000-0000-7000-8000-00000000ad17"])
async def test_an_unknown_client_is_named(muster: Muster, command: str, client: str) -> None:
    told = await muster("clients", command, client)
    assert told.refusal == (1, f"muster: there is no client {client}: `muster clients list` names them")


async def test_another_processs_login_may_not_make_clients(muster: Muster, surroundings: dict[str, str]) -> None:
    url = surroundings["DATABASE_URL"].replace("muster_command", "muster_query")
    told = await muster("clients", "create", "billing", "--scope", "ops", DATABASE_URL=url)
    assert told.refusal == (2, "muster: the database: permission denied for table clients")
