"""The statements that make the declared table of users beside the live one, and put it in that one's place.

Made as the projector's role, which then owns the table.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Index, MetaData, PrimaryKeyConstraint, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable, SetTableComment
from sqlalchemy.sql import quoted_name

from projector.read_model import SHAPE, users

NEXT: Final = "read_model.users_next"
READERS: Final = "muster_query"

_DIALECT: Final = postgresql.dialect()
# names of constraints are a table's own; those of its indexes are the schema's, so they wait for the swap
_TAKE_PLACE: Final = """
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT conname FROM pg_constraint
        WHERE conrelid = 'read_model.users'::regclass AND starts_with(conname, 'users_next_')
    LOOP
        EXECUTE format('ALTER TABLE read_model.users RENAME CONSTRAINT %I TO %I',
            name, 'users_' || substr(name, length('users_next_') + 1));
    END LOOP;
END
$$
"""


def _next_table() -> Table:
    """The declared table under its name beside the live one, without a primary key: rows go in faster."""
    table = users.to_metadata(MetaData(schema=users.schema), name="users_next")
    for column in list(table.primary_key):
        column.primary_key = False
        column.nullable = False
    table.append_constraint(PrimaryKeyConstraint())
    return table


def _compiled(statement: CreateTable | CreateIndex | SetTableComment) -> bytes:
    return str(statement.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True})).strip().encode()


def _indexes(table: Table) -> Sequence[Index]:
    return sorted(table.indexes, key=lambda index: str(index.name))


def _next_name(index: Index) -> str:
    return f"next_{index.name}"


def created() -> Sequence[bytes]:
    """Make the table, empty and without indexes."""
    table = _next_table()
    statements = [_compiled(CreateTable(table)), _compiled(SetTableComment(table))]
    statements += [
        f"ALTER TABLE {NEXT} ALTER COLUMN {column.name} SET STATISTICS {column.info['statistics']}".encode()
        for column in table.columns
        if "statistics" in column.info
    ]
    return [*statements, f"GRANT SELECT ON {NEXT} TO {READERS}".encode()]


def indexed() -> Mapping[str, bytes]:
    """Give it its primary key, then its indexes, by their names until the swap."""
    key = ", ".join(column.name for column in users.primary_key)
    statements = {"users_next_pkey": f"ALTER TABLE {NEXT} ADD CONSTRAINT users_next_pkey PRIMARY KEY ({key})".encode()}
    table = _next_table()
    for index in _indexes(table):
        index.name = quoted_name(_next_name(index), quote=None)
        statements[str(index.name)] = _compiled(CreateIndex(index))
    return statements


def swapped() -> Sequence[bytes]:
    """Put it in the live table's place, under the declared names."""
    return [
        b"DROP TABLE read_model.users",
        f"ALTER TABLE {NEXT} RENAME TO users".encode(),
        *(f"ALTER INDEX read_model.{_next_name(index)} RENAME TO {index.name}".encode() for index in _indexes(users)),
        _TAKE_PLACE.encode(),
    ]


def fingerprint() -> str:
    """Names the declared table: another column, index or shape has another one."""
    declared = b"\0".join([str(SHAPE).encode(), *created(), *indexed().values()])
    return hashlib.sha256(declared).hexdigest()[:16]
