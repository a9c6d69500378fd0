"""What the database itself says of a table of the read model."""

from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation::regcollation::text,
    a.attstattarget, a.attstorage, pg_get_expr(d.adbin, d.adrelid), a.attgenerated
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = 'read_model.users'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
CONSTRAINTS = """
SELECT conname, contype, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = 'read_model.users'::regclass ORDER BY conname
"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'read_model' AND tablename = 'users' ORDER BY indexname"
TABLE = """
SELECT relowner::regrole::text AS owner, obj_description(oid, 'pg_class') AS comment, relpersistence, reloptions,
    (SELECT array_agg(a.grantee::regrole || ' ' || a.privilege_type ORDER BY 1) FROM aclexplode(relacl) a) AS privileges
FROM pg_class WHERE oid = 'read_model.users'::regclass
"""


def users_table(owner: psycopg.Connection[Any]) -> dict[str, list[dict[str, Any]]]:
    """Columns, constraints, indexes, owner and privileges of read_model.users."""
    asked: dict[str, LiteralString] = {
        "columns": COLUMNS,
        "constraints": CONSTRAINTS,
        "indexes": INDEXES,
        "table": TABLE,
    }
    with owner.cursor(row_factory=dict_row) as cursor:
        return {name: cursor.execute(query).fetchall() for name, query in asked.items()}
