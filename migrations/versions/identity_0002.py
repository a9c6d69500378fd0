"""Logins, sessions, signing keys, revocations and guesses; appends that revoke."""

from migrations.files import run_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FILES = (
    "identity",
    "revoke",
    "attempt",
    "begin_session",
    "refresh",
    "end_session",
    "append",
    "identity_grants",
)


def upgrade() -> None:
    run_sql(FILES)


def downgrade() -> None:
    raise RuntimeError("the log is never dropped by a migration: restore a backup into another database instead")
