"""Each process's role does what its process does and no more, whatever a bug or an intruder asks for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import errors, sql

from tests.databases import as_role

Owner = psycopg.Connection[dict[str, Any]]
As = Callable[[str], psycopg.Connection]
TABLES = [
    "log.events",
    "log.head",
    "log.email_claims",
    "log.commands",
    "log.user_keys",
    "log.publication",
    "identity.credentials",
    "read_model.users",
    "read_model.progress",
]
PRIVILEGES = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]
ALL_BUT_TRUNCATE = {"SELECT", "INSERT", "UPDATE", "DELETE"}
ALLOWED: dict[str, dict[str, set[str]]] = {
    "muster_command": {
        "log.events": {"SELECT", "INSERT"},
        "log.user_keys": {"SELECT", "INSERT"},
        "log.head": {"SELECT", "UPDATE"},
        "log.email_claims": ALL_BUT_TRUNCATE,
        "log.commands": ALL_BUT_TRUNCATE,
        "identity.credentials": ALL_BUT_TRUNCATE,
        "log.publication": {"SELECT", "INSERT", "UPDATE"},
    },
    "muster_query": {
        name: {"SELECT"}
        for name in (
            "log.events",
            "log.head",
            "log.user_keys",
            "log.publication",
            "read_model.users",
            "read_model.progress",
        )
    },
    "muster_projector": {
        "log.events": {"SELECT"},
        "log.head": {"SELECT"},
        "log.user_keys": {"SELECT"},
        "log.publication": {"SELECT"},
        "read_model.users": ALL_BUT_TRUNCATE,
        "read_model.progress": ALL_BUT_TRUNCATE,
    },
}
ATTEMPTS: dict[str, LiteralString] = {
    "UPDATE": "UPDATE {} SET {} = {}",
    "DELETE": "DELETE FROM {}",
    "TRUNCATE": "TRUNCATE {}",
    "INSERT": "INSERT INTO {} DEFAULT VALUES",
    "DROP": "DROP TABLE {}",
    "DISABLE": "ALTER TABLE {} DISABLE TRIGGER ALL",
}


@pytest.fixture
def acting_as(database_url: str) -> Iterator[As]:
    with ExitStack() as open_connections:

        def connect(role: str) -> psycopg.Connection:
            return open_connections.enter_context(psycopg.connect(as_role(database_url, role), autocommit=True))

        yield connect


def attempt(connection: psycopg.Connection, what: str, table: str) -> None:
    name = sql.Identifier(*table.split("."))
    column = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum = 1", (table,)
    ).fetchall()[0][0]
    field = sql.Identifier(column)
    connection.execute(sql.SQL(ATTEMPTS[what]).format(name, field, field))


@pytest.mark.parametrize("role", sorted(ALLOWED))
def test_a_role_has_exactly_these_privileges(owner: Owner, role: str) -> None:
    found = {
        table: {
            privilege
            for privilege in PRIVILEGES
            if owner.execute("SELECT 1 WHERE has_table_privilege(%s, %s, %s)", (role, table, privilege)).fetchall()
        }
        for table in TABLES
    }
    assert {table: privileges for table, privileges in found.items() if privileges} == ALLOWED[role]


def test_every_table_is_judged_here(owner: Owner) -> None:
    found = owner.execute(
        "SELECT schemaname || '.' || tablename AS name FROM pg_tables"
        " WHERE schemaname IN ('log', 'identity', 'read_model')"
    )
    assert {row["name"] for row in found.fetchall()} == set(TABLES)


@pytest.mark.parametrize("what", ["UPDATE", "DELETE", "TRUNCATE", "DROP", "DISABLE"])
@pytest.mark.parametrize("role", sorted(ALLOWED))
def test_nobody_but_the_owner_changes_or_removes_an_event(acting_as: As, role: str, what: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        attempt(acting_as(role), what, "log.events")


def test_the_query_role_writes_nothing(acting_as: As) -> None:
    connection = acting_as("muster_query")
    for table in TABLES:
        for what in ATTEMPTS:
            with pytest.raises(errors.InsufficientPrivilege):
                attempt(connection, what, table)


def test_the_projector_role_does_not_touch_the_log_or_secrets(acting_as: As) -> None:
    connection = acting_as("muster_projector")
    for table in TABLES[:7]:
        for what in ATTEMPTS:
            with pytest.raises(errors.InsufficientPrivilege):
                attempt(connection, what, table)


@pytest.mark.parametrize("role", ["muster_query", "muster_projector"])
def test_password_hashes_are_for_the_command_role_alone(acting_as: As, role: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        acting_as(role).execute("SELECT 1 FROM identity.credentials")


@pytest.mark.parametrize("role", ["muster_query", "muster_projector"])
def test_only_the_command_role_appends(acting_as: As, role: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        acting_as(role).execute("SELECT * FROM log.append('[]')")


@pytest.mark.parametrize("role", ["muster_query", "muster_command"])
def test_only_the_projector_role_applies(acting_as: As, role: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        acting_as(role).execute("SELECT * FROM read_model.apply('[]', '[]', false)")


@pytest.mark.parametrize("role", sorted(ALLOWED))
def test_a_role_is_no_superuser_and_makes_nothing(acting_as: As, role: str) -> None:
    connection = acting_as(role)
    attributes = connection.execute(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = %s",
        (role,),
    ).fetchall()
    assert attributes == [(False, False, False, False, False)]
    for statement in ("CREATE SCHEMA mine", "CREATE TABLE public.mine (n int)", "CREATE TABLE log.mine (n int)"):
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement)
