"""Names have a table of their own, and the order by update knows status and roles."""

from migrations.files import run_sql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

FILES = ("names", "project", "put", "erase_row")


def upgrade() -> None:
    run_sql(FILES)


def downgrade() -> None:
    raise RuntimeError("the log is never dropped by a migration: restore a backup into another database instead")
