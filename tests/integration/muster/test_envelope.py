"""--json: one document on stdout whatever comes of a command, and everything else on stderr."""

import json
import secrets
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.databases import MakeSettings
from tests.integration.muster.conftest import Muster, Told
from tests.processes import environment_of

Owner = psycopg.Connection[dict[str, Any]]

NOWHERE = "postgresql://muster_command@127.0.0.1:1/nowhere"


def envelope(told: Told) -> dict[str, Any]:
    assert told.stdout.count("\n") == 1
    document: dict[str, Any] = json.loads(told.stdout)
    assert document.keys() == {"command", "ok", "exit_code", "result", "errors"}
    assert document["exit_code"] == told.status
    assert document["ok"] == (told.status == 0) == (document["errors"] == [])
    return document


async def test_what_was_done_is_0_with_its_result(muster: Muster) -> None:
    made = envelope(await muster("clients", "create", "billing", "--scope", "users:read", "--json"))
    assert (made["command"], made["ok"]) == ("clients create", True)
    assert made["result"].keys() == {"client_id", "client_secret"}
    told = await muster("clients", "list", "--json")
    [client] = envelope(told)["result"]["clients"]
    assert (client["id"], client["name"], client["disabled_at"]) == (made["result"]["client_id"], "billing", None)
    rotated = await muster("keys", "rotate", "--json")
    kid = envelope(rotated)["result"]["kid"]
    assert [line["event"] for line in rotated.records] == ["keys.rotated"]
    keys = envelope(await muster("keys", "list", "--json"))["result"]["keys"]
    assert [(key["state"], key["kid"] == kid) for key in keys] == [("signs", False), ("published", True)]


async def test_what_is_refused_is_1_with_its_code(muster: Muster) -> None:
    told = await muster("clients", "disable", "nobody", "--json")
    found = envelope(told)
    assert (told.status, found["result"], found["errors"][0]["code"]) == (1, None, "unknown_client")
    assert told.stderr == f"muster: {found['errors'][0]['detail']}\n"


async def test_what_is_found_is_1_with_result_and_reason(
    muster: Muster, owner: Owner, make_settings: MakeSettings
) -> None:
    owner.execute(
        "INSERT INTO read_model.parked (source, partition, topic_offset, reason) VALUES ('topic', 0, 7, 'no event')"
    )
    projectors = environment_of(make_settings("muster_projector"))
    told = await muster("parked", "list", "--json", **projectors)
    found = envelope(told)
    assert (told.status, [one["topic_offset"] for one in found["result"]["parked"]]) == (1, [7])
    assert found["errors"] == [{"code": "parked", "detail": "parked: 1"}]
    number = str(found["result"]["parked"][0]["id"])
    shown = envelope(await muster("parked", "show", number, "--json", **projectors))
    assert shown["result"]["parked"][0]["reason"] == "no event"
    retried = envelope(await muster("parked", "retry", "--all", "--json", **projectors))
    assert [one["outcome"] for one in retried["result"]["parked"]] == ["nothing_to_retry"]
    discarded = envelope(await muster("parked", "discard", number, "--reason", "a stranger's", "--json", **projectors))
    assert [one["outcome"] for one in discarded["result"]["parked"]] == ["done"]


@pytest.mark.parametrize(
    "command",
    [
        ("admin", "create", "--email", "grace@example.com"),
        ("clients", "create", "billing", "--scope", "users:read"),
        ("clients", "list"),
        ("export", "FOLDER"),
        ("import", "FILE"),
        ("keys", "list"),
        ("keys", "rotate"),
        ("lag",),
        ("migrate",),
        ("operations",),
        ("parked", "list"),
        ("parked", "retry", "--all"),
        ("rebuild", "users"),
        ("replay", "--to-topic", "elsewhere"),
        ("seed", "5"),
        ("verify", "model", "--no-topics"),
    ],
    ids=" ".join,
)
async def test_without_a_database_it_is_2_with_the_reason(
    muster: Muster, tmp_path: Path, command: tuple[str, ...]
) -> None:
    file = tmp_path / "users.ndjson"
    file.write_text('{"email": "ada@example.com"}\n')
    named = {"FILE": str(file), "FOLDER": str(tmp_path / "export")}
    arguments = [named.get(word, word) for word in command]
    told = await muster(*arguments, "--json", stdin="a lighthouse in the fog", DATABASE_URL=NOWHERE)
    found = envelope(told)
    assert (told.status, found["result"]) == (2, None), told.stderr
    [error] = found["errors"]
    assert error["code"] in {"unavailable", "database"}
    assert told.stderr.splitlines()[-1] == f"muster: {error['detail']}"


async def test_wrong_settings_and_wrong_keys_have_codes(muster: Muster) -> None:
    for variables, code in (
        ({"LOG_LEVEL": "loud"}, "bad_settings"),
        ({"KEK": "c2hvcnQ="}, "bad_key"),
        ({"DATABASE_URL": None}, "cannot_run"),
    ):
        told = await muster("keys", "rotate", "--json", **variables)
        assert (told.status, envelope(told)["errors"][0]["code"]) == (2, code)


async def test_progress_is_on_stderr(muster: Muster) -> None:
    told = await muster("seed", "20", "--json")
    assert envelope(told)["result"]["users"] == 20
    assert [line["phase"] for line in told.records] == ["seeding"]
    told = await muster("seed", "20")
    assert told.stdout.startswith("20 users, 30 events, positions 31 to 60 in ")
    assert [line["phase"] for line in told.records] == ["seeding"]


async def test_what_people_read_is_the_same_in_a_pipe(muster: Muster, tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_text("email,attributes\nada@example.com,\ndan@example.com,{floor}\n")
    told = await muster("import", str(file))
    assert told.status == 1
    refused, summary = told.stdout.splitlines()
    assert refused.startswith("line 3: #/attributes not valid JSON")
    assert summary == "1 created, 1 refused"


async def test_files_that_cannot_be_made_are_the_environments_fault(muster: Muster, tmp_path: Path) -> None:
    told = await muster("secrets", str(tmp_path), "--json")
    assert len(envelope(told)["result"]["made"]) == 11
    (tmp_path / "file").touch()
    told = await muster("secrets", str(tmp_path / "file"), "--json")
    assert (told.status, envelope(told)["errors"][0]["code"]) == (2, "cannot_run")


async def test_records_of_a_topic(muster: Muster, make_settings: MakeSettings) -> None:
    servers = make_settings(broker=True).kafka_bootstrap_servers
    topic = f"nothing.{secrets.token_hex(4)}"
    missing = await muster("consume", topic, "--json", KAFKA_BOOTSTRAP_SERVERS=servers)
    assert (missing.status, envelope(missing)["result"]) == (2, None)
    endless = await muster("consume", topic, "--json", "--follow", KAFKA_BOOTSTRAP_SERVERS=servers)
    assert (endless.status, envelope(endless)["errors"][0]["code"]) == (2, "usage")
