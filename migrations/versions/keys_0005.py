"""Keys that take each other's place while everything runs: which KEKs are in use, and a second e-mail index."""

from migrations.files import run_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

FILES = ("keys", "append")


def upgrade() -> None:
    run_sql(FILES)


def downgrade() -> None:
    raise RuntimeError("the log is never dropped by a migration: restore a backup into another database instead")
