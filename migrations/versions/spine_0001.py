"""The log, identity's credentials, the read model, and the roles that may touch them."""

from migrations.files import run_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

FILES = ("roles", "log", "append", "read_model", "apply", "grants")


def upgrade() -> None:
    run_sql(FILES)


def downgrade() -> None:
    raise RuntimeError("the log is never dropped by a migration: restore a backup into another database instead")
