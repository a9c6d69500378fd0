"""The migrations make exactly the read-model table that projector/read_model.py declares."""

from typing import Any

import psycopg
import pytest
from sqlalchemy import Column, Computed, Engine, MetaData, create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.pool import NullPool

from migrations import apply
from migrations.apply import OldServer, migrate
from projector import read_model, table_ddl
from runtime.database import sqlalchemy_url
from tests.catalog import users_table
from tests.databases import as_role

Owner = psycopg.Connection[dict[str, Any]]

DIALECT = postgresql.dialect()


@pytest.fixture
def engine(database_url: str) -> Engine:
    return create_engine(sqlalchemy_url(database_url), poolclass=NullPool)


def shape(column: "Column[object]") -> tuple[str, bool, bool, bool]:
    return (
        column.type.compile(dialect=DIALECT),
        bool(column.nullable),
        column.primary_key,
        isinstance(column.server_default, Computed),
    )


def test_an_older_server_is_refused_before_anything_is_made(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "OLDEST_SERVER", 1000)
    with psycopg.connect(database_url, autocommit=True) as empty:
        for schema in ("log", "read_model", "identity"):
            empty.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())
        empty.execute("DROP TABLE IF EXISTS alembic_version")
        with pytest.raises(OldServer, match=r"^PostgreSQL \d+\S* is too old: use PostgreSQL 1000 or newer$"):
            migrate(database_url, role_passwords={})
        assert empty.execute("SELECT FROM pg_tables WHERE tablename = 'alembic_version'").fetchall() == []


def test_the_declared_tables_are_those_that_the_migrations_make(engine: Engine) -> None:
    made = MetaData(schema="read_model")
    made.reflect(engine)
    for name, declared in read_model.metadata.tables.items():
        shapes = [{column.name: shape(column) for column in table.columns} for table in (declared, made.tables[name])]
        assert shapes[0] == shapes[1]
        assert list(shapes[0]) == list(shapes[1])


def test_the_migrated_table_of_users_is_the_declared_one_in_every_respect(owner: Owner, database_url: str) -> None:
    migrated = users_table(owner)
    with psycopg.connect(as_role(database_url, "muster_projector"), autocommit=True) as projector:
        for statement in (*table_ddl.created(), *table_ddl.indexed().values(), *table_ddl.swapped()):
            projector.execute(statement)
    declared = users_table(owner)
    for aspect, found in migrated.items():
        assert found == declared[aspect], aspect
        assert found, aspect


def test_a_new_install_gets_the_newest_declaration_from_the_migration(
    owner: Owner, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = owner.execute("SELECT 'read_model.users'::regclass::oid AS oid").fetchall()
    migrate(database_url, role_passwords={})
    assert owner.execute("SELECT 'read_model.users'::regclass::oid AS oid").fetchall() == made
    monkeypatch.setattr(apply, "SHAPE", read_model.SHAPE + 1)
    migrate(database_url, role_passwords={})
    assert owner.execute("SELECT 'read_model.users'::regclass::oid AS oid").fetchall() != made
    assert owner.execute("SELECT shape, fingerprint FROM read_model.builds WHERE state = 'live'").fetchall() == [
        {"shape": read_model.SHAPE + 1, "fingerprint": table_ddl.fingerprint()}
    ]
    assert users_table(owner)["table"][0]["owner"] == "muster_projector"


def test_a_read_model_with_users_keeps_its_table_until_a_rebuild(
    owner: Owner, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.execute("UPDATE log.head SET position = 1")
    monkeypatch.setattr(apply, "SHAPE", read_model.SHAPE + 1)
    migrate(database_url, role_passwords={})
    assert owner.execute("SELECT shape FROM read_model.builds WHERE state = 'live'").fetchall() == [
        {"shape": read_model.SHAPE}
    ]
