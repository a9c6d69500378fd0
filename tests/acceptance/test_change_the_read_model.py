"""docs/change-the-read-model.md, followed literally: its edits in a copy of the code, its commands, its order."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from tests.databases import MakeSettings, database_named
from tests.plain_http import PLAIN
from tests.processes import ROOT, Process, StartProcess, environment_of
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

Owner = psycopg.Connection[dict[str, Any]]

PAGE = (ROOT / "docs" / "change-the-read-model.md").read_text()
PACKAGES = ("command_api", "events", "identity", "migrations", "muster", "projector", "query_api", "runtime")


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """The code with the page's edits."""
    folder = tmp_path / "changed"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    edits = re.findall(r"^```diff (\S+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(edits) == 7
    for name, edit in edits:
        lines = edit.splitlines()
        before = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
        after = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
        file = folder / name
        assert file.read_text().count(before) == 1, f"{name} has not once:\n{before}"
        file.write_text(file.read_text().replace(before, after))
    return folder


def wrong(process: Process) -> str:
    """What a process says of itself when it is not ready."""
    try:
        answer = httpx.get(f"{process.url}/readyz", verify=PLAIN, trust_env=False)
    except httpx.TransportError:
        return ""
    return "" if answer.is_success else str(answer.json()["detail"])


def run(folder: Path, command: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def teams(query: Process, team: str, position: str) -> list[str]:
    with query.client() as client:
        answer = client.get("/users", params={"team": team}, headers={"Min-Position": position, "Prefer": "wait=30"})
    assert answer.status_code == 200, answer.text
    return [user["email"] for user in answer.json()["users"]]


def create(command: Process, email: str, team: str) -> str:
    with command.client() as client:
        answer = client.post("/users", json={"email": email, "attributes": {"team": team}})
    assert answer.status_code == 201
    return answer.headers["event-position"]


def test_an_indexed_column_comes_without_an_outage(
    changed: Path, start_process: StartProcess, make_settings: MakeSettings, owner: Owner
) -> None:
    command, query = start_process("command_api"), start_process("query_api")
    projector = start_process("projector", projector_instance="one")
    for process in (command, query, projector):
        process.wait_until_ready()
    position = [
        create(command, f"user{number}@example.com", "engines" if number % 4 == 0 else "looms") for number in range(20)
    ][-1]
    with query.client() as client:
        fresh = {"Min-Position": position, "Prefer": "wait=30"}
        assert client.get("/users", headers=fresh).status_code == 200

    # deploy the projectors
    assert projector.stop() == 0
    start_process("projector", folder=changed, projector_instance="one").wait_until_ready()
    newer = start_process("query_api", folder=changed)
    eventually(lambda: "shape" in wrong(newer), what="the new query API says what it misses", timeout=60)
    assert "the read model has shape 1, this version needs 2: run `muster rebuild users`" in wrong(newer)

    # rebuild
    environment = environment_of(make_settings("muster_projector", broker=True))
    commands = re.findall(r"^    (muster .*)$", PAGE, flags=re.MULTILINE)
    assert commands == ["muster rebuild users --dry-run", "muster rebuild users"]
    for told in [run(changed, f"{one} --json", environment) for one in commands]:
        assert json.loads(told)["result"]["differences"] == 0
    assert query.ready()
    with query.client() as client:
        assert len(client.get("/users").json()["users"]) == 20
    indexes = owner.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'users' AND schemaname = 'read_model'")
    assert "users_team_idx" in {row["indexname"] for row in indexes}

    # deploy the query API
    newer.wait_until_ready()
    position = create(command, "late@example.com", "engines")
    engines = [f"user{number}@example.com" for number in range(0, 20, 4)]
    assert teams(newer, "engines", position) == [*engines, "late@example.com"]

    # an old projector that is left would spoil the table: it refuses
    old = start_process("projector", projector_instance="two")
    more = itertools.count()

    def halted() -> bool:
        # it finds out when it is to write
        create(command, f"more{next(more)}@example.com", "looms")
        return "shape" in wrong(old)

    eventually(halted, what="the old projector halts", timeout=60)
    assert "the read model has shape 2, this projector writes shape 1" in wrong(old)


def test_a_new_install_gets_the_column_from_the_migration(changed: Path, postgres_url: str, database_url: str) -> None:
    name = f"{database_url.rsplit('/', 1)[1]}_new"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            url = database_named(postgres_url, name)
            run(changed, "muster migrate", {"DATABASE_URL": url})
            with psycopg.connect(url) as made:
                assert made.execute("SELECT shape FROM read_model.builds WHERE state = 'live'").fetchall() == [(2,)]
                assert made.execute("SELECT team FROM read_model.users").fetchall() == []
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
