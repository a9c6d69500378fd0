"""`muster operations`: who did what, when, with which parameters, and how it ended."""

import getpass
import socket
from typing import Any

import psycopg
import pytest
from psycopg import errors

from tests.databases import MakeSettings, as_role
from tests.integration.muster.conftest import Muster

Owner = psycopg.Connection[dict[str, Any]]
PASSWORD = "a lighthouse in the fog"


async def told(muster: Muster, *options: str) -> list[dict[str, Any]]:
    found = await muster("operations", "--json", *options)
    assert found.status == 0, found.stderr
    operations: list[dict[str, Any]] = found.result["operations"]
    return operations


async def test_what_operators_do_is_recorded_with_its_parameters_and_outcome(
    muster: Muster, make_settings: MakeSettings, owner: Owner
) -> None:
    assert await told(muster) == []
    kid = (await muster("keys", "rotate", "--operator", "grace")).stdout.split()[0]
    made = await muster("clients", "create", "billing", "--scope", "users:read")
    client = made.stdout.splitlines()[0].removeprefix("client_id=")
    assert (await muster("clients", "rotate", "billing")).status == 0
    assert (await muster("clients", "disable", "billing")).status == 0
    admin = await muster("admin", "create", "--email", "grace@example.com", "--reason", "first day", stdin=PASSWORD)
    assert admin.status == 0, admin.stderr
    projector = make_settings("muster_projector").database_url.get_secret_value()
    assert (await muster("rebuild", "users", "--dry-run", "--workers", "1", DATABASE_URL=projector)).status == 0

    found = await told(muster)
    assert [(one["operation"], one["outcome"]) for one in found] == [
        ("rebuild", "done"),
        ("admin.create", "done"),
        ("clients.disable", "done"),
        ("clients.rotate", "done"),
        ("clients.create", "done"),
        ("keys.rotate", "done"),
    ]
    oneself = f"{getpass.getuser()}@{socket.gethostname()}"
    assert [one["operator"] for one in found] == [oneself] * 5 + ["grace"]
    assert found[5]["parameters"] == {"kid": kid, "signs_in": 120}
    assert found[4]["parameters"] == {"client": client, "name": "billing", "scopes": ["users:read"]}
    assert found[0]["parameters"] == {"dry_run": True, "fresh": False, "workers": 1}
    assert (found[0]["result"]["users"], found[0]["result"]["swapped"]) == (1, False)
    assert found[0]["ended_at"] is not None
    event = owner.execute("SELECT metadata FROM log.events WHERE position = 1").fetchall()[0]["metadata"]
    assert (event["actor"], event["reason"]) == ({"subject": oneself, "kind": "operator"}, "first day")
    # nothing personal: the record is kept for ever
    assert "grace@example.com" not in str(found)

    assert [one["operation"] for one in await told(muster, "--operation", "clients", "--limit", "2")] == [
        "clients.disable",
        "clients.rotate",
    ]
    assert [one["operation"] for one in await told(muster, "--by", "grace")] == ["keys.rotate"]
    table = await muster("operations")
    assert (table.status, "keys.rotate" in table.stdout, "grace" in table.stdout) == (0, True, True)


async def test_what_was_refused_is_no_operation(muster: Muster) -> None:
    assert (await muster("clients", "create", "billing", "--scope", "users:read")).status == 0
    assert (await muster("clients", "create", "billing", "--scope", "users:read")).status == 1
    assert (await muster("clients", "rotate", "nobody")).status == 1
    assert [one["operation"] for one in await told(muster)] == ["clients.create"]


async def test_nobody_changes_what_is_recorded(muster: Muster, database_url: str) -> None:
    assert (await muster("keys", "rotate")).status == 0
    for role in ("muster_command", "muster_projector", "muster_query"):
        with psycopg.connect(as_role(database_url, role), autocommit=True) as connection:
            for query in ("UPDATE log.operations SET operator = 'me'", "DELETE FROM log.operations"):
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(query.encode())
