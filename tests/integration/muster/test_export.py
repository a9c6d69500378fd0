"""`muster export` for other tools, and `muster import-log` into an empty database."""

import hashlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import duckdb
import pandas as pd
import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from migrations.apply import migrate
from tests.databases import MakeSettings, as_role, database_named
from tests.histories import History
from tests.integration.muster.conftest import Muster, Told
from tests.rotations import NEW, NEW_KEK, keks, variables
from tests.signed_trees import grow_and_sign
from tests.tokens import KEK, trust_the_tests

Owner = psycopg.Connection[dict[str, Any]]
LOG = "SELECT * FROM log.events ORDER BY position"


@pytest.fixture
def peopled(history: History) -> History:
    """Positions 1 to 40 are creations, 41 to 60 changes, 61 to 65 deletions."""
    history.create(range(40))
    history.change(range(20), display_name="Changed")
    history.delete(range(5))
    return history


@pytest.fixture
def projectors(make_settings: MakeSettings) -> dict[str, str]:
    return {"DATABASE_URL": make_settings("muster_projector").database_url.get_secret_value()}


@pytest.fixture
def empty(postgres_url: str) -> Iterator[str]:
    """The owner's URL of another database, migrated and empty."""
    name = f"muster_test_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        url = database_named(postgres_url, name)
        migrate(url, role_passwords={})
        trust_the_tests(url)
        yield url
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    for file in manifest["files"]:
        content = (folder / file["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])
    return manifest


def queried(query: str) -> list[Any]:
    relation = duckdb.sql(query)
    assert relation is not None
    return relation.fetchall()


def done(told: Told) -> dict[str, Any]:
    assert told.status == 0, told.stderr
    return told.result


async def test_a_log_that_was_exported_is_restored_and_verifies(
    muster: Muster, peopled: History, projectors: dict[str, str], empty: str, tmp_path: Path
) -> None:
    peopled.owner.execute(
        "INSERT INTO log.discarded SELECT position, user_id, version, 'grace', 'broken' FROM log.events"
        " WHERE position = 41"
    )
    folder = tmp_path / "export"
    told = done(
        await muster("export", "--json", str(folder), "--operator", "grace", KEK=None, KEK_FILE=None, **projectors)
    )
    assert (told["events"], told["first"], told["last"]) == (65, 1, 65)
    manifest = manifest_of(folder)
    assert [(file["name"], file["rows"]) for file in manifest["files"]] == [
        ("events-00001.jsonl", 65),
        ("keys.jsonl", 40),
        ("discarded.jsonl", 1),
        ("erasures.jsonl", 0),
    ]
    written = b"".join(file.read_bytes() for file in folder.iterdir())
    assert b"example.com" not in written
    assert b"Changed" not in written

    restored = done(await muster("import-log", "--json", str(folder), DATABASE_URL=empty))
    assert restored == {"events": 65, "claims": 35}
    projector = as_role(empty, "muster_projector")
    assert (await muster("rebuild", "users", "--workers", "1", DATABASE_URL=projector)).status == 0
    verified = await muster("verify", "model", "--no-topics", "--json", DATABASE_URL=projector)
    assert done(verified)["events"] == 65
    with psycopg.Connection[dict[str, Any]].connect(empty, row_factory=dict_row) as connection:
        for query in (LOG, "SELECT * FROM log.user_keys ORDER BY user_id", "SELECT * FROM log.discarded"):
            assert connection.execute(query.encode()).fetchall() == peopled.owner.execute(query.encode()).fetchall()
    again = await muster("import-log", str(folder), DATABASE_URL=empty)
    assert (again.status, "has a log already" in again.stderr) == (1, True)
    operations = (await muster("operations", "--json", DATABASE_URL=empty)).result["operations"]
    assert {"import-log", "rebuild"} == {one["operation"] for one in operations}


async def test_the_export_of_a_signed_log_is_restored_too(
    muster: Muster,
    peopled: History,
    projectors: dict[str, str],
    make_settings: MakeSettings,
    empty: str,
    tmp_path: Path,
) -> None:
    await grow_and_sign(make_settings("muster_command"))
    folder = tmp_path / "export"
    done(await muster("export", "--json", str(folder), **projectors))
    assert "hashes.bin" in {file["name"] for file in manifest_of(folder)["files"]}
    assert done(await muster("import-log", "--json", str(folder), DATABASE_URL=empty)) == {"events": 65, "claims": 35}
    verified = done(await muster("verify", "log", "--json", DATABASE_URL=as_role(empty, "muster_projector")))
    assert (verified["events"], verified["wrong"]) == (peopled.head, None)


async def test_a_stretch_in_parquet_is_read_by_duckdb_and_pandas(
    muster: Muster, peopled: History, projectors: dict[str, str], tmp_path: Path
) -> None:
    peopled.damage(30, 1)
    folder = tmp_path / "export"
    stretch = ("--format", "parquet", "--since", "21", "--as-of", "64")
    told = done(await muster("export", "--json", str(folder), *stretch, **projectors))
    assert (told["events"], told["first"], told["last"], told["unreadable"]) == (44, 21, 64, 1)
    assert manifest_of(folder)["files"][0]["rows"] == 44
    query = f"SELECT type, count(*) FROM '{folder}/*.parquet' GROUP BY type ORDER BY type"
    assert queried(query) == [("UserCreated", 20), ("UserDeleted", 4), ("UserUpdated", 20)]
    rows = cast("list[dict[str, Any]]", pd.read_parquet(folder / "events-00001.parquet").to_dict("records"))
    assert [row["position"] for row in rows] == list(range(21, 65))
    changed = rows[41 - 21]
    assert (changed["email"], changed["display_name"], list(changed["roles"])) == (
        "user00000@example.com",
        "Changed",
        ["user"],
    )
    assert json.loads(changed["changes"]) == {"display_name": {"old": "User 0", "new": "Changed"}}
    assert changed["recorded_at"].tzinfo is not None
    broken = rows[31 - 21]
    assert not isinstance(broken["email"], str)
    assert "does not open" in broken["unreadable"]


async def test_opened_lines_are_read_too(
    muster: Muster, peopled: History, projectors: dict[str, str], tmp_path: Path, empty: str
) -> None:
    folder = tmp_path / "export"
    moment = peopled.owner.execute("SELECT recorded_at FROM log.events WHERE position = 40").fetchall()[0]
    as_of = moment["recorded_at"].isoformat()
    assert (
        done(await muster("export", "--json", str(folder), "--opened", "--as-of", as_of, **projectors))["events"] == 40
    )
    rows = queried(f"SELECT email FROM read_json('{folder}/events-*.jsonl') WHERE position = 7")
    assert rows == [("user00006@example.com",)]
    refused = await muster("import-log", str(folder), DATABASE_URL=empty)
    assert (refused.status, "does not become a log again" in refused.stderr) == (1, True)


async def test_an_export_has_a_folder_of_its_own(muster: Muster, projectors: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    status, line = (await muster("export", str(tmp_path), **projectors)).refusal
    assert (status, "is not empty" in line) == (1, True)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.usefixtures("peopled")
@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("manifest.json", None, "not whole"),
        ("keys.jsonl", None, "No such file"),
        ("keys.jsonl", "", "altered or cut short"),
        ("events-00001.jsonl", "{}\n", "altered or cut short"),
    ],
)
async def test_what_was_altered_is_not_restored(
    muster: Muster,
    projectors: dict[str, str],
    empty: str,
    tmp_path: Path,
    name: str,
    content: str | None,
    word: str,
) -> None:
    folder = tmp_path / "export"
    done(await muster("export", "--json", str(folder), **projectors))
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    told = await muster("import-log", str(folder), DATABASE_URL=empty)
    assert told.status in {1, 2}
    assert word in told.stderr
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT position FROM log.head").fetchall() == [(0,)]


@pytest.mark.usefixtures("peopled")
async def test_only_the_owner_restores_and_only_with_the_right_key(
    muster: Muster, projectors: dict[str, str], empty: str, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    done(await muster("export", "--json", str(folder), **projectors))
    told = await muster("import-log", str(folder), DATABASE_URL=as_role(empty, "muster_command"))
    assert (told.status, "owner" in told.stderr) == (2, True)
    wrong = {"KEK": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "KEK_FILE": None}
    told = await muster("import-log", str(folder), DATABASE_URL=empty, **wrong)
    assert (told.status, "set KEK or KEK_FILE" in told.stderr) == (2, True)
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT position FROM log.head").fetchall() == [(0,)]


async def test_an_export_from_before_a_rotation_is_restored_where_the_former_kek_is_only_known(
    muster: Muster, peopled: History, projectors: dict[str, str], empty: str, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    await muster("export", str(folder), **projectors)
    rotated = variables(keks(NEW_KEK, KEK))
    assert (await muster("import-log", str(folder), "--json", DATABASE_URL=empty, **rotated)).result["claims"] == 35
    commands = as_role(empty, "muster_command")
    told = (await muster("keys", "rotate-kek", "--json", DATABASE_URL=commands, **rotated)).result
    assert told["users"] == 40
    projector = {"DATABASE_URL": as_role(empty, "muster_projector"), **variables(keks(NEW_KEK))}
    assert (await muster("rebuild", "users", "--workers", "1", **projector)).status == 0
    assert (await muster("verify", "model", "--no-topics", "--json", **projector)).result["events"] == 65
    # the log that it is of goes on under the former
    assert len(wrappers(peopled.owner)) == 1


async def test_an_export_from_after_a_rotation_needs_the_new_kek_alone(
    muster: Muster, peopled: History, projectors: dict[str, str], empty: str, tmp_path: Path
) -> None:
    assert (await muster("keys", "rotate-kek", **variables(keks(NEW_KEK, KEK)))).status == 0
    assert wrappers(peopled.owner) == {NEW.id}
    folder = tmp_path / "export"
    await muster("export", str(folder), **projectors)
    former = await muster("import-log", str(folder), DATABASE_URL=empty)
    assert (former.status, "KEKS_KNOWN" in former.stderr) == (2, True)
    alone = variables(keks(NEW_KEK))
    assert (await muster("import-log", str(folder), "--json", DATABASE_URL=empty, **alone)).result["claims"] == 35


def wrappers(owner: Owner) -> set[str]:
    return {row["kek_id"] for row in owner.execute("SELECT DISTINCT kek_id FROM log.user_keys").fetchall()}
