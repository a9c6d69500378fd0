"""How far the relay has come, by what it says of itself in the database."""

from typing import Any

import psycopg

Owner = psycopg.Connection[dict[str, Any]]


def published(owner: Owner, position: int) -> bool:
    """Whether both topics have every event up to this position."""
    row = owner.execute("SELECT min(position) AS position, count(*) AS count FROM log.publication").fetchone()
    return row is not None and row["count"] > 0 and row["position"] >= position
