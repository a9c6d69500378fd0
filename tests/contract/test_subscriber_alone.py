"""The subscriber is a distribution of its own: built here, and used where nothing of the store can be imported."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.processes import ROOT

BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
ALONE = """
import asyncio, importlib, pkgutil, sys

FORBIDDEN = set(sys.argv[2].split(","))


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise AssertionError(f"{name} is the store's")


sys.meta_path.insert(0, Blocked())
sys.path.insert(0, sys.argv[1])
import muster_subscriber

assert muster_subscriber.__file__.startswith(sys.argv[1]), muster_subscriber.__file__
for module in pkgutil.iter_modules(muster_subscriber.__path__):
    importlib.import_module(f"muster_subscriber.{module.name}")

from muster_subscriber.sqlite import SqliteUsers
from muster_subscriber.testing import MusterUsers


async def main():
    users, table = MusterUsers(), SqliteUsers(":memory:")
    ada = users.create(email="ada@example.com")
    async with users.subscription(table) as subscription:
        async for change in subscription:
            table.apply([change], change.bookmark)
            print(change.kind, change.version, change.user.email)


asyncio.run(main())
"""
STORE = (
    *("command_api", "events", "identity", "migrations", "muster", "projector", "query_api", "runtime", "tests"),
    *("alembic", "argon2", "confluent_kafka", "cryptography", "fastapi", "orjson", "prometheus_client", "psycopg"),
    *("pydantic", "sqlalchemy", "starlette", "structlog", "uvicorn", "uvloop"),
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subscriber")
    shutil.copytree(ROOT / "subscriber", folder / "source", ignore=shutil.ignore_patterns("__pycache__", "build"))
    built = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", BUILD, str(folder)],
        cwd=folder / "source",
        check=False,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    [found] = folder.glob("*.whl")
    return found


def test_the_wheel_has_the_package_its_types_and_the_plugin(wheel: Path) -> None:
    sources = ROOT / "subscriber" / "muster_subscriber"
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        [about] = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(content.read(about))
        entry_points = content.read(about.replace("METADATA", "entry_points.txt")).decode()
    assert names >= {f"muster_subscriber/{file.name}" for file in sources.glob("*.py")} | {"muster_subscriber/py.typed"}
    assert not [name for name in names if not name.startswith("muster_subscriber")]
    declared = tomllib.loads((ROOT / "subscriber" / "pyproject.toml").read_text())["project"]
    needed = [one for one in metadata.get_all("Requires-Dist", []) if "extra ==" not in one]
    assert sorted(needed) == sorted(declared["dependencies"])
    assert "[pytest11]\nmuster_subscriber = muster_subscriber.plugin" in entry_points


def test_it_works_where_nothing_of_the_store_is(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(tmp_path), ",".join(STORE)],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "state 1 ada@example.com\n"
