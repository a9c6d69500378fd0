"""A Merkle tree over the log: its tiles, and the checkpoints that were signed."""

from migrations.files import run_sql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

FILES = ("proofs",)


def upgrade() -> None:
    run_sql(FILES)


def downgrade() -> None:
    raise RuntimeError("the log is never dropped by a migration: restore a backup into another database instead")
