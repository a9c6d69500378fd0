"""A repeated request for an erasure is known by what its digest was with other keys, too."""

from migrations.files import run_sql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

FILES = ("request_erasure", "erasure_grants")


def upgrade() -> None:
    run_sql(FILES)


def downgrade() -> None:
    raise RuntimeError("the log is never dropped by a migration: restore a backup into another database instead")
