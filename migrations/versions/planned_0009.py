"""The projector's batches go into the live table by a statement whose plan is kept."""

from migrations.files import run_sql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

FILES = ("project",)


def upgrade() -> None:
    run_sql(FILES)


def downgrade() -> None:
    raise RuntimeError("the log is never dropped by a migration: restore a backup into another database instead")
