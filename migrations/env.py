"""Alembic's entry point: runs the versions on the connection that `migrations.apply` made."""

from typing import cast

from alembic import context
from sqlalchemy import Connection

connection = cast("Connection", context.config.attributes["connection"])
context.configure(connection=connection, version_table="muster_migrations")
with context.begin_transaction():
    context.run_migrations()
