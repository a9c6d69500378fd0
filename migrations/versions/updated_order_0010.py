"""A change of a user touches only the indexes of what it changes: the order by update has a table of its own."""

from migrations.files import run_sql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

FILES = ("updated_order", "project", "put", "erase_row")


def upgrade() -> None:
    run_sql(FILES)


def downgrade() -> None:
    raise RuntimeError("the log is never dropped by a migration: restore a backup into another database instead")
