"""`muster import`: files of users, what is refused of them, and going on after a kill."""

from pathlib import Path
from typing import Any

import bcrypt
import httpx
import psycopg
import pytest

from tests.integration.muster.conftest import Muster, Told
from tests.logins import log_in

Owner = psycopg.Connection[dict[str, Any]]
PASSWORD = "a lighthouse in the fog"


def counts(told: Told) -> dict[str, Any]:
    return {name: value for name, value in told.result.items() if name != "lines"}


def count(owner: Owner) -> int:
    return owner.execute("SELECT position FROM log.head").fetchall()[0]["position"]


def ndjson(file: Path, users: int) -> Path:
    file.write_text("".join(f'{{"email": "user{number}@example.com"}}\n' for number in range(users)))
    return file


async def test_a_file_of_lines_becomes_users(muster: Muster, owner: Owner, tmp_path: Path) -> None:
    file = ndjson(tmp_path / "users.ndjson", 700)
    checked = await muster("import", "--json", str(file), "--check")
    assert checked.status == 0
    assert counts(checked) == {"created": 700, "done_before": 0, "refused": 0, "check": True}
    assert count(owner) == 0
    told = await muster("import", "--json", str(file), "--operator", "grace", "--reason", "moved")
    assert (told.status, counts(told)) == (0, {"created": 700, "done_before": 0, "refused": 0, "check": False})
    metadata = owner.execute(
        "SELECT DISTINCT metadata->'actor' AS actor, metadata->>'reason' AS reason FROM log.events"
    )
    assert metadata.fetchall() == [{"actor": {"subject": "grace", "kind": "operator"}, "reason": "moved"}]
    again = await muster("import", "--json", str(file))
    assert counts(again) == {"created": 0, "done_before": 700, "refused": 0, "check": False}
    assert count(owner) == 700
    operations = (await muster("operations", "--json")).result["operations"]
    assert [(one["operation"], one["outcome"], one["result"]["created"]) for one in operations] == [
        ("import", "done", 0),
        ("import", "done", 700),
    ]


async def test_one_that_was_killed_goes_on(muster: Muster, owner: Owner, tmp_path: Path) -> None:
    file = ndjson(tmp_path / "users.jsonl", 1500)
    killed = await muster("import", "--json", str(file), FAILPOINTS="command.committed=kill@700")
    assert killed.status == -9
    before = count(owner)
    assert 0 < before < 1500
    told = await muster("import", "--json", str(file))
    assert told.status == 0
    assert counts(told) == {"created": 1500 - before, "done_before": before, "refused": 0, "check": False}
    assert count(owner) == 1500


async def test_a_spreadsheet_becomes_users(
    muster: Muster, commands: httpx.AsyncClient, owner: Owner, tmp_path: Path
) -> None:
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    file = tmp_path / "users.csv"
    file.write_text(
        "\ufeffemail,display_name,roles,attributes,attributes.team,password,password_hash\n"
        'ada@example.com,"Lovelace, Ada",user auditor,"{""floor"": 3}",engines,,\n'
        f'bob@example.com,"Two\nlines",,,,{PASSWORD},\n'
        f"cat@example.com,,,,,,{hashed}\n"
        "dan@example.com,,,{floor},,,\n"
        "eve@example.com,,\n"
        f"fay@example.com,Fay,,,,{PASSWORD},\n"
    )
    told = await muster("import", "--json", str(file))
    assert told.status == 1
    assert counts(told) == {"created": 3, "done_before": 0, "refused": 3, "check": False}
    assert [(one["line"], one["errors"][0]["pointer"]) for one in told.result["lines"]] == [
        (4, "#/display_name"),
        (6, "#/attributes"),
        (7, "#"),
    ]
    assert told.stderr.strip().splitlines()[-1] == "muster: 3 lines were refused"
    ada = owner.execute("SELECT data->'record' AS record FROM log.events ORDER BY position LIMIT 1").fetchall()[0]
    assert ada["record"]["roles"] == ["auditor", "user"]
    for email in ("cat@example.com", "fay@example.com"):
        assert (await log_in(commands, email, PASSWORD)).status_code == 200


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("users.txt", "", "its name says how it is read"),
        ("missing.csv", None, "No such file"),
        ("users.csv", "name\nada\n", "no column name"),
        ("users.csv", "display_name\nada\n", "no column email"),
    ],
)
async def test_what_is_no_such_file_is_one_line(
    muster: Muster, tmp_path: Path, name: str, content: str | None, word: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    status, line = (await muster("import", str(file))).refusal
    assert (status, len(line.splitlines())) == (2, 1)
    assert word in line
