"""One database a test, copied from a migrated template; settings that fit it; each process's own role."""

import base64
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from migrations.apply import migrate
from runtime.settings import Settings
from tests.tokens import EMAIL_INDEX_KEY, KEK, trust_the_tests

PARTITIONS = 3
# cheap enough for thousands of users; what a deployment takes is tested in tests/unit
CHEAP_ARGON2 = {"argon2_memory_kib": 8, "argon2_time_cost": 1}

MakeSettings = Callable[..., Settings]


def database_named(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def as_role(url: str, role: str) -> str:
    """Log in as the owner but act as the role from the start, so that no role of the server needs a password."""
    return f"{url}{'&' if '?' in url else '?'}options={quote(f'-c role={role}')}"


def _new_name() -> str:
    return f"muster_test_{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def template(postgres_url: str) -> Iterator[str]:
    name = _new_name()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        migrate(database_named(postgres_url, name), role_passwords={})
        trust_the_tests(database_named(postgres_url, name))
        yield name
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(postgres_url: str, template: str) -> Iterator[str]:
    """The owner's URL of a database of this test's own, migrated and empty."""
    name = _new_name()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        yield database_named(postgres_url, name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """The owner's own connection to this test's database, in autocommit."""
    with psycopg.Connection[dict[str, Any]].connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture(scope="session")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    files = {"kek_file": folder / "kek", "email_index_key_file": folder / "email-index-key"}
    for file, key in zip(files.values(), (KEK, EMAIL_INDEX_KEY), strict=True):
        file.write_text(base64.b64encode(key).decode())
    return files


@pytest.fixture
def make_settings(database_url: str, key_files: dict[str, Path], request: pytest.FixtureRequest) -> MakeSettings:
    """Settings for a process of `role`, with topics of this test's own; a broker only for those that use it."""
    suffix = secrets.token_hex(6)

    def make(role: str = "muster_command", *, broker: bool = False, **overrides: object) -> Settings:
        servers = request.getfixturevalue("bootstrap_servers") if broker else "127.0.0.1:1"
        values: dict[str, Any] = {
            "muster_mode": "test",
            "database_url": as_role(database_url, role),
            "kafka_bootstrap_servers": servers,
            "events_topic": f"users.events.{suffix}",
            "snapshot_topic": f"users.snapshot.{suffix}",
            "checkpoints_topic": f"users.checkpoints.{suffix}",
            "projector_group": f"projector-{suffix}",
            "topic_partitions": PARTITIONS,
            # the embedded broker answers empty fetches at once
            "fetch_pause": 0.01,
            "relay": broker,
            **CHEAP_ARGON2,
            **key_files,
            **overrides,
        }
        return Settings(**values)

    return make
