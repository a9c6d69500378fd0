from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import Connection, create_engine, text

from projector import table_ddl
from projector.read_model import SHAPE
from runtime.database import sqlalchemy_url

ROLES = ("muster_command", "muster_query", "muster_projector")
# of which the schema and the statements use what older ones lack, such as crc32()
OLDEST_SERVER: Final = 18
# any number that nothing else locks: processes that migrate at once go one by one
LOCK = 7_203_311

SERVER = text("SELECT current_setting('server_version'), current_setting('server_version_num')::int / 10000")
OUTDATED_AND_EMPTY = text("""
SELECT 1 FROM read_model.builds b CROSS JOIN log.head h
WHERE b.state = 'live' AND b.shape < :shape AND h.position = 0 AND NOT EXISTS (SELECT 1 FROM read_model.users)
""")
MADE = text("UPDATE read_model.builds SET shape = :shape, fingerprint = :fingerprint WHERE state = 'live'")


class OldServer(Exception):
    """The server is older than OLDEST_SERVER; the message says what to use."""


def migrate(database_url: str, *, role_passwords: Mapping[str, str]) -> None:
    """Bring the database to the newest schema, as its owner, and set the roles' passwords that are given.

    A read model without users gets the declared table; one with users gets it by `muster rebuild users`. Raises
    psycopg.OperationalError when the database is away, and OldServer; safe to repeat and to run from several places at
    once.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    engine = create_engine(sqlalchemy_url(database_url))
    try:
        with engine.begin() as connection:
            _check_server(connection)
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            _make_declared_table(connection)
    finally:
        engine.dispose()
    with psycopg.connect(database_url, autocommit=True) as connection:
        for role, password in role_passwords.items():
            connection.execute(
                sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
            )


def _check_server(connection: Connection) -> None:
    version, major = connection.execute(SERVER).one()
    if major < OLDEST_SERVER:
        raise OldServer(f"PostgreSQL {version} is too old: use PostgreSQL {OLDEST_SERVER} or newer")


def _make_declared_table(connection: Connection) -> None:
    if connection.execute(OUTDATED_AND_EMPTY, {"shape": SHAPE}).first() is None:
        return
    # who makes the table owns it, and a rebuild replaces it as that role
    connection.execute(text("SET LOCAL ROLE muster_projector"))
    for statement in (*table_ddl.created(), *table_ddl.indexed().values(), *table_ddl.swapped()):
        connection.exec_driver_sql(statement.decode().replace("%", "%%"))
    connection.execute(text("RESET ROLE"))
    connection.execute(MADE, {"shape": SHAPE, "fingerprint": table_ddl.fingerprint()})
