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
LOG = [
    "log.events",
    "log.head",
    "log.email_claims",
    "log.commands",
    "log.user_keys",
    "log.publication",
    "log.partitioning",
    "log.parked",
    "log.discarded",
    "log.operations",
    "log.tree",
    "log.tiles",
    "log.checkpoints",
    "log.erasures",
    "log.email_index",
]
IDENTITY = [
    "identity.credentials",
    "identity.clients",
    "identity.sessions",
    "identity.guesses",
    "identity.revocations",
    "identity.revocation_head",
    "identity.signing_keys",
]
READ_MODEL = [
    "read_model.users",
    "read_model.users_updated",
    "read_model.users_names",
    "read_model.progress",
    "read_model.builds",
    "read_model.build_ranges",
    "read_model.parked",
    "read_model.projectors",
]
TABLES = LOG + IDENTITY + READ_MODEL
PRIVILEGES = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]
ALL_BUT_TRUNCATE = {"SELECT", "INSERT", "UPDATE", "DELETE"}
ALLOWED: dict[str, dict[str, set[str]]] = {
    "muster_command": {
        "log.events": {"SELECT", "INSERT"},
        "log.user_keys": {"SELECT", "INSERT"},
        "log.head": {"SELECT", "UPDATE"},
        "log.email_claims": ALL_BUT_TRUNCATE,
        "log.commands": ALL_BUT_TRUNCATE,
        "log.publication": {"SELECT", "INSERT", "UPDATE"},
        "log.partitioning": {"SELECT", "INSERT"},
        "log.parked": ALL_BUT_TRUNCATE,
        "log.discarded": {"SELECT"},
        "log.operations": {"SELECT", "INSERT"},
        "log.tree": {"SELECT", "INSERT", "UPDATE"},
        "log.tiles": ALL_BUT_TRUNCATE,
        # what was signed is never changed
        "log.checkpoints": {"SELECT", "INSERT"},
        "log.erasures": {"SELECT", "INSERT"},
        "log.email_index": {"SELECT"},
        "identity.credentials": ALL_BUT_TRUNCATE,
        "identity.sessions": ALL_BUT_TRUNCATE,
        "identity.guesses": ALL_BUT_TRUNCATE,
        "identity.revocations": ALL_BUT_TRUNCATE,
        "identity.revocation_head": {"SELECT", "UPDATE"},
        # a key or a client that was revoked stays known as that
        "identity.signing_keys": {"SELECT", "INSERT", "UPDATE"},
        "identity.clients": {"SELECT", "INSERT", "UPDATE"},
    },
    "muster_query": {
        name: {"SELECT"}
        for name in (
            "log.events",
            "log.head",
            "log.user_keys",
            "log.publication",
            "log.partitioning",
            "log.parked",
            "log.discarded",
            "log.tiles",
            "log.checkpoints",
            "log.erasures",
            "identity.revocations",
            "identity.revocation_head",
            *READ_MODEL,
        )
    },
    "muster_projector": {
        "log.events": {"SELECT"},
        "log.head": {"SELECT"},
        "log.user_keys": {"SELECT"},
        "log.publication": {"SELECT"},
        "log.partitioning": {"SELECT"},
        "log.parked": {"SELECT"},
        "log.discarded": {"SELECT", "INSERT"},
        "log.operations": {"SELECT", "INSERT"},
        "log.tiles": {"SELECT"},
        "log.checkpoints": {"SELECT"},
        "log.erasures": {"SELECT"},
        **dict.fromkeys(READ_MODEL, ALL_BUT_TRUNCATE),
        # a rebuild puts another in its place
        "read_model.users": set(PRIVILEGES),
        "read_model.users_updated": set(PRIVILEGES),
        "read_model.users_names": set(PRIVILEGES),
    },
}
# of the log's tree all but the key that signs
TREE = {"generation", "origin", "size", "public_key"}
# where a role may read some columns and not the table
COLUMNS: dict[str, dict[str, set[str]]] = {
    "muster_command": {},
    "muster_query": {
        "identity.signing_keys": {"kid", "public_key", "published_at", "signs_from", "verifies_until"},
        "log.tree": TREE,
        # what a person is told of their own logins
        "identity.credentials": {"user_id", "changed_at"},
        "identity.sessions": {
            *("id", "subject", "scopes", "user_agent", "created_at", "last_used_at", "expires_at", "ended_at"),
        },
    },
    "muster_projector": {"log.tree": TREE},
}
# where a role may write some columns and not the table
WRITABLE_COLUMNS: dict[str, dict[str, set[str]]] = {
    "muster_command": {
        # when a key was destroyed is for the function to say that does it
        "UPDATE log.erasures": {"position", "deleted_at", "buried_at", "completed_at"},
        # keys are wrapped anew, and make no tombstone: for that erased_at is missing
        "UPDATE log.user_keys": {"wrapped", "kek_id"},
        "UPDATE log.email_index": {"key_id", "next_key_id"},
    },
    "muster_query": {},
    # who retries what the relay has parked leaves it a note
    "muster_projector": {"UPDATE log.parked": {"retry"}},
}
FUNCTIONS = [
    "identity.attempt(bytea, bytea, bytea, integer, integer)",
    "identity.forgive(bytea, bytea, bytea)",
    "identity.roles_of(uuid)",
    "identity.begin_session(uuid, uuid, text, text, text[], bytea, bytea, integer, text, bytea, bytea, bytea)",
    "identity.refresh(uuid, bytea, bytea, bytea, bytea, double precision)",
    "identity.revoke(uuid, boolean)",
    "identity.end_session(uuid, uuid)",
    "identity.delay(integer, integer, integer)",
]
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
    for table in LOG + IDENTITY:
        for what in ATTEMPTS:
            if what not in ALLOWED["muster_projector"].get(table, set()):
                with pytest.raises(errors.InsufficientPrivilege):
                    attempt(connection, what, table)


@pytest.mark.parametrize("role", sorted(ALLOWED))
def test_a_role_reads_exactly_these_columns_of_what_it_may_not_read_whole(owner: Owner, role: str) -> None:
    found: dict[str, set[str]] = {}
    for table in set(TABLES) - {name for name, allowed in ALLOWED[role].items() if "SELECT" in allowed}:
        rows = owner.execute(
            "SELECT attname AS name FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
            " AND has_column_privilege(%s, attrelid, attnum, 'SELECT')",
            (table, role),
        ).fetchall()
        if rows:
            found[table] = {row["name"] for row in rows}
    assert found == COLUMNS[role]


@pytest.mark.parametrize("role", sorted(ALLOWED))
def test_a_role_writes_no_single_column_of_what_it_may_not_write_whole(owner: Owner, role: str) -> None:
    found: dict[str, set[str]] = {}
    for table in TABLES:
        for privilege in ("INSERT", "UPDATE", "REFERENCES"):
            if privilege not in ALLOWED[role].get(table, set()):
                rows = owner.execute(
                    "SELECT attname AS name FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
                    " AND has_column_privilege(%s, attrelid, attnum, %s)",
                    (table, role, privilege),
                ).fetchall()
                if rows:
                    found[f"{privilege} {table}"] = {row["name"] for row in rows}
    assert found == WRITABLE_COLUMNS[role]


@pytest.mark.parametrize("role", ["muster_query", "muster_projector"])
@pytest.mark.parametrize("table", [name for name in IDENTITY if "revocation" not in name])
def test_what_lets_somebody_in_is_for_the_command_role_alone(acting_as: As, role: str, table: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        acting_as(role).execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(*table.split("."))))


def test_the_query_role_reads_public_keys_and_no_private_one(acting_as: As) -> None:
    connection = acting_as("muster_query")
    assert connection.execute("SELECT kid, public_key, verifies_until FROM identity.signing_keys").fetchall()
    assert connection.execute("SELECT number FROM identity.revocation_head").fetchall() == [(0,)]
    assert connection.execute("SELECT id, number FROM identity.revocations").fetchall() == []
    for column in ("wrapped", "kek_id", "signing_keys", "length(wrapped)"):
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(sql.SQL("SELECT {} FROM identity.signing_keys").format(sql.SQL(column)))  # pyright: ignore[reportArgumentType] - one of those above


def test_every_function_of_identity_is_the_command_roles_alone(owner: Owner) -> None:
    found = owner.execute(
        "SELECT p.oid::regprocedure::text AS name, ARRAY(SELECT role FROM unnest(%s::text[]) AS role"
        " WHERE has_function_privilege(role, p.oid, 'EXECUTE')) AS roles"
        " FROM pg_proc p WHERE p.pronamespace = 'identity'::regnamespace",
        ([*sorted(ALLOWED)],),
    ).fetchall()
    assert {row["name"].replace(",", ", ") for row in found} == set(FUNCTIONS)
    assert {tuple(row["roles"]) for row in found} == {("muster_command",)}


def test_no_function_but_the_erasure_runs_with_rights_that_its_caller_lacks(owner: Owner) -> None:
    found = owner.execute(
        "SELECT p.oid::regprocedure::text AS name, p.proconfig AS settings"
        " FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
        " WHERE p.prosecdef AND n.nspname IN ('log', 'identity', 'read_model')"
    )
    definers = {row["name"]: row["settings"] for row in found.fetchall()}
    assert definers.keys() == {"log.erase(uuid,bytea[],json)", "read_model.erase(uuid,json,json)"}
    # nothing that a caller made is taken for what they mean
    assert all("search_path=pg_catalog, pg_temp" in settings for settings in definers.values())


@pytest.mark.parametrize("role", ["muster_query", "muster_projector"])
def test_only_the_command_role_appends(acting_as: As, role: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        acting_as(role).execute("SELECT * FROM log.append('[]')")


@pytest.mark.parametrize("role", ["muster_query", "muster_command"])
def test_only_the_projector_role_applies(acting_as: As, role: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        acting_as(role).execute("SELECT * FROM read_model.project('[]', '[]', false, 1)")


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
