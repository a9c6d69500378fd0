"""`muster erase`, `muster erasures`, and what a restored dump makes of an erasure."""

import json
from pathlib import Path
from typing import Any

import httpx
import psycopg

from events.erasures import COLUMNS
from tests.calls import create
from tests.databases import MakeSettings, as_role
from tests.dumps import Dumps
from tests.integration.muster.conftest import Muster, Told
from tests.people import ADA_ID

Owner = psycopg.Connection[dict[str, Any]]

EMAIL = "zuleika@lovelace.example"


async def erase(muster: Muster, *arguments: str, **variables: str) -> Told:
    # no relay runs here: nothing is complete
    return await muster("erase", *arguments, "--wait", "0", "--operator", "grace@ops-1", "--json", **variables)


def wrapped(owner: Owner) -> dict[str, bytes | None]:
    return {str(row["user_id"]): row["wrapped"] for row in owner.execute("SELECT * FROM log.user_keys").fetchall()}


async def test_an_operator_erases_a_person(muster: Muster, commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands, EMAIL)
    told = await erase(muster, user["id"], "--reason", "case 17")
    assert (told.status, "recorded" in told.stderr) == (1, True)
    receipt = told.result
    assert (receipt["user_id"], receipt["reason"]) == (user["id"], "case 17")
    assert receipt["actor"] == {"subject": "grace@ops-1", "kind": "operator"}
    assert EMAIL not in told.stdout + told.stderr
    assert wrapped(owner) == {user["id"]: None}
    # the command API may have been the one that went on with it
    assert "user.erasure_requested" in {record["event"] for record in told.records}
    # as a relay and time would have it
    owner.execute("UPDATE log.erasures SET buried_at = now(), erased_at = erased_at - interval '1 min'")
    again = await erase(muster, user["id"])
    assert (again.status, again.result["state"]) == (0, "done")
    operations = owner.execute("SELECT operator, operation, parameters, outcome FROM log.operations ORDER BY id")
    assert [(row["operator"], row["operation"], row["outcome"]) for row in operations.fetchall()] == [
        ("grace@ops-1", "erase", "began"),
        ("grace@ops-1", "erase", "done"),
    ] * 2


async def test_an_unknown_person_and_no_person_are_told(muster: Muster, owner: Owner) -> None:
    told = await erase(muster, str(ADA_ID))
    assert (told.status, told.result, "there is no user" in told.stderr) == (1, None, True)
    assert owner.execute("SELECT outcome FROM log.operations ORDER BY id DESC").fetchall()[0]["outcome"] == "refused"
    for wrong in (["ada"], []):
        told = await erase(muster, *wrong)
        assert (told.status, told.result) == (2, None)


async def test_receipts_are_lines(muster: Muster, commands: httpx.AsyncClient) -> None:
    assert (await muster("erasures")).stdout == ""
    users = [await create(commands, f"{number}-{EMAIL}") for number in range(3)]
    for user in users:
        await commands.post(f"/users/{user['id']}/erase", headers={"Reason": "case 17"})
    lines = (await muster("erasures", "--json")).result["erasures"]
    assert [line["user_id"] for line in lines] == [user["id"] for user in users]
    assert {line["reason"] for line in lines} == {"case 17"}


async def test_a_dump_from_before_the_erasure_is_erased_again(
    muster: Muster, commands: httpx.AsyncClient, owner: Owner, dumps: Dumps, tmp_path: Path
) -> None:
    gone, stays = await create(commands, EMAIL, password="correct horse"), await create(commands, "grace@example.com")
    before = dumps.dump("before")
    late = await create(commands, "late@example.com")
    for user in (gone, late):
        await commands.post(f"/users/{user['id']}/erase", headers={"Reason": "case 17"})
    receipts = tmp_path / "receipts.ndjson"
    receipts.write_text((await muster("erasures")).stdout)
    requested = owner.execute("SELECT requested_at FROM log.erasures ORDER BY requested_at").fetchall()[0]

    restored_url = {"DATABASE_URL": as_role(dumps.restored, "muster_command")}
    with dumps.restore(before) as restored:
        assert wrapped(restored)[gone["id"]] is not None
        told = await erase(muster, "--again", str(receipts), **restored_url)
        assert told.status == 1, told.stderr
        # who was created after the dump is not in it
        assert told.result == {"erased": 1, "already": 0, "unknown": 1, "open": 1}
        assert wrapped(restored)[gone["id"]] is None
        assert wrapped(restored)[stays["id"]] is not None
        (row,) = restored.execute(f"SELECT {COLUMNS} FROM log.erasures".encode()).fetchall()
        assert row["requested_at"] == requested["requested_at"]
        assert row["metadata"]["reason"] == "case 17"
        events = restored.execute("SELECT type, metadata FROM log.events WHERE user_id = %s", (gone["id"],)).fetchall()
        assert [event["type"] for event in events] == ["UserCreated", "UserDeleted"]
        assert restored.execute("SELECT 1 FROM identity.credentials").fetchall() == []
        restored.execute("UPDATE log.erasures SET buried_at = now(), erased_at = erased_at - interval '1 min'")
        told = await erase(muster, "--again", str(receipts), **restored_url)
        assert told.status == 0
        assert told.result == {"erased": 1, "already": 0, "unknown": 1, "open": 0}
        told = await erase(muster, "--again", str(receipts), **restored_url)
        assert told.result == {"erased": 0, "already": 1, "unknown": 1, "open": 0}


async def test_a_dump_from_after_the_erasure_has_it(
    muster: Muster, commands: httpx.AsyncClient, dumps: Dumps, tmp_path: Path
) -> None:
    gone, stays = await create(commands, EMAIL), await create(commands, "grace@example.com")
    await commands.post(f"/users/{gone['id']}/erase")
    after = dumps.dump("after")
    ids = tmp_path / "ids.txt"
    ids.write_text(f"{gone['id']}\n")
    with dumps.restore(after) as restored:
        assert {user: key is None for user, key in wrapped(restored).items()} == {gone["id"]: True, stays["id"]: False}
        assert len(restored.execute("SELECT 1 FROM log.erasures WHERE erased_at IS NOT NULL").fetchall()) == 1
        told = await erase(muster, "--again", str(ids), DATABASE_URL=as_role(dumps.restored, "muster_command"))
        assert told.result == {"erased": 1, "already": 0, "unknown": 0, "open": 1}
        assert len(restored.execute("SELECT 1 FROM log.events").fetchall()) == 3


async def test_a_line_that_is_no_receipt_is_told_before_anybody_is_erased(
    muster: Muster, commands: httpx.AsyncClient, owner: Owner, tmp_path: Path
) -> None:
    user = await create(commands)
    nobody = json.dumps({"user_id": user["id"], "actor": {}})
    for line in ('{"user": 1}', "nobody", "[1]", '{"user_id": "x"}', nobody):
        file = tmp_path / "receipts"
        file.write_text(f"{user['id']}\n\n{line}\n")
        told = await erase(muster, "--again", str(file))
        assert told.status == 2
        assert "line 3 is neither a receipt" in told.stderr
    assert wrapped(owner)[user["id"]] is not None


async def test_an_export_carries_the_tombstone_and_the_receipt(
    muster: Muster,
    commands: httpx.AsyncClient,
    owner: Owner,
    make_settings: MakeSettings,
    database_url: str,
    tmp_path: Path,
) -> None:
    gone, _ = await create(commands, EMAIL), await create(commands, "grace@example.com")
    await commands.post(f"/users/{gone['id']}/erase", headers={"Reason": "case 17"})
    url = {"DATABASE_URL": make_settings("muster_projector").database_url.get_secret_value()}
    folder = tmp_path / "export"
    assert (await muster("export", str(folder), **url)).status == 0
    keys = [json.loads(line) for line in (folder / "keys.jsonl").read_text().splitlines()]
    assert {key["user_id"]: key["wrapped"] is None for key in keys}[gone["id"]]
    (receipt,) = [json.loads(line) for line in (folder / "erasures.jsonl").read_text().splitlines()]
    assert (receipt["user_id"], receipt["metadata"]["reason"]) == (gone["id"], "case 17")
    for kind in ("jsonl", "parquet"):
        opened = tmp_path / kind
        told = await muster("export", str(opened), "--opened", "--format", kind, **url)
        assert told.status == 0, told.stderr
        assert json.loads((opened / "manifest.json").read_text())["unreadable"] == 0
        assert all(b"zuleika" not in file.read_bytes() for file in opened.iterdir())
    lines = [json.loads(line) for line in (tmp_path / "jsonl" / "events-00001.jsonl").read_text().splitlines()]
    assert [(line["erased"], line["email"]) for line in lines] == [
        (True, None),
        (False, "grace@example.com"),
        (True, None),
    ]
    owner.execute("TRUNCATE log.events, log.user_keys, log.email_claims, log.discarded, log.erasures")
    owner.execute("UPDATE log.head SET position = 0")
    assert (await muster("import-log", str(folder), DATABASE_URL=database_url)).status == 0
    (row,) = owner.execute("SELECT * FROM log.erasures").fetchall()
    assert (str(row["user_id"]), row["erased_at"] is not None) == (gone["id"], True)
    assert wrapped(owner)[gone["id"]] is None
