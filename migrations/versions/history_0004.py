"""The log as it was at any moment: look-ups by user and position, by order of creation and by time."""

from migrations.files import run_sql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

FILES = ("history",)


def upgrade() -> None:
    run_sql(FILES)


def downgrade() -> None:
    raise RuntimeError("the log is never dropped by a migration: restore a backup into another database instead")
