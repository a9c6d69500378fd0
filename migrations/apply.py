from collections.abc import Mapping
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import create_engine, text

from runtime.database import sqlalchemy_url

ROLES = ("muster_command", "muster_query", "muster_projector")
# any number that nothing else locks: processes that migrate at once go one by one
LOCK = 7_203_311


def migrate(database_url: str, *, role_passwords: Mapping[str, str]) -> None:
    """Bring the database to the newest schema, as its owner, and set the roles' passwords that are given.

    Raises psycopg.OperationalError when the database is away; safe to repeat and to run from several places at once.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    engine = create_engine(sqlalchemy_url(database_url))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()
    with psycopg.connect(database_url, autocommit=True) as connection:
        for role, password in role_passwords.items():
            connection.execute(
                sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
            )
