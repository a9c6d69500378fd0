"""The log, identity's credentials, the read model, and the roles that may touch them."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
FILES = ("roles", "log", "append", "read_model", "apply", "grants")


def upgrade() -> None:
    connection = op.get_bind()
    for name in FILES:
        # past SQLAlchemy's own parameter syntax: the files are plain SQL
        connection.exec_driver_sql((SQL / f"{name}.sql").read_text().replace("%", "%%"))


def downgrade() -> None:
    raise RuntimeError("the log is never dropped by a migration: restore a backup into another database instead")
