from urllib.parse import quote, urlsplit

import psycopg
from psycopg import sql

from muster.embedded.postgres import EmbeddedPostgres
from muster.home import Home

DATABASE = "muster"
OWNER = "muster_owner"
# each process logs in as a role that may do what it must and nothing else
ROLES = {"command_api": "muster_command", "query_api": "muster_query", "projector": "muster_projector"}


def prepare_database(postgres: EmbeddedPostgres, home: Home) -> str:
    """Make the database and its owner, who is no superuser, where they are missing; gives the owner's URL."""
    password = home.secret(OWNER)
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [OWNER]).fetchone()
        connection.execute(
            sql.SQL("{} ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD {}").format(
                sql.SQL("ALTER" if known else "CREATE"), sql.Identifier(OWNER), sql.Literal(password)
            )
        )
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), sql.Identifier(OWNER))
            )
    return as_role(postgres.url(DATABASE), OWNER, password)


def role_passwords(home: Home) -> dict[str, str]:
    return {role: home.secret(role) for role in ROLES.values()}


def as_role(database_url: str, role: str, password: str) -> str:
    """Give the address of the same database for another login."""
    parts = urlsplit(database_url)
    server = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(role, safe='')}:{quote(password, safe='')}@{server}").geturl()
