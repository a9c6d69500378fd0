"""Persons can be erased: requests and receipts, the destruction of a key, and appends that respect both."""

from migrations.files import run_sql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FILES = ("erasure", "request_erasure", "erase_row", "erase", "append", "begin_session", "erasure_grants")


def upgrade() -> None:
    run_sql(FILES)


def downgrade() -> None:
    raise RuntimeError("the log is never dropped by a migration: restore a backup into another database instead")
