from collections.abc import Iterable
from pathlib import Path

from alembic import op

SQL = Path(__file__).parent / "sql"


def run_sql(names: Iterable[str]) -> None:
    """Run files of migrations/sql by name, in the migration that is under way."""
    connection = op.get_bind()
    for name in names:
        # past SQLAlchemy's own parameter syntax: the files are plain SQL
        connection.exec_driver_sql((SQL / f"{name}.sql").read_text().replace("%", "%%"))
