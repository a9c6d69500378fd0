"""A read model that is rebuilt beside itself, parks what it cannot apply, and tells where it stands."""

from alembic import op

from migrations.files import run_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FILES = ("projection", "put", "park", "project", "projection_grants")


def upgrade() -> None:
    op.execute("DROP FUNCTION read_model.apply(json, json, boolean)")
    run_sql(FILES)


def downgrade() -> None:
    raise RuntimeError("the log is never dropped by a migration: restore a backup into another database instead")
