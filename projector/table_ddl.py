"""The statements that make the declared tables of users beside the live ones, and put them in those ones' place.

Made as the projector's role, which then owns the tables.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Index, MetaData, PrimaryKeyConstraint, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable, SetTableComment
from sqlalchemy.sql import quoted_name

from projector.read_model import SHAPE, users, users_names, users_updated

NEXT: Final = "read_model.users_next"
NEXT_UPDATED: Final = f"{NEXT}_updated"
NEXT_NAMES: Final = f"{NEXT}_names"
NEXT_TABLES: Final = f"{NEXT}, {NEXT_UPDATED}, {NEXT_NAMES}"
READERS: Final = "muster_query"

_DIALECT: Final = postgresql.dialect()
# names of constraints are a table's own; those of its indexes are the schema's, so they wait for the swap
_TAKE_PLACE: Final = """
DO $$
DECLARE
    relation regclass;
    name text;
BEGIN
    FOR relation, name IN
        SELECT conrelid, conname FROM pg_constraint
        WHERE conrelid IN ('read_model.users'::regclass, 'read_model.users_updated'::regclass,
                'read_model.users_names'::regclass)
            AND starts_with(conname, 'users_next_')
    LOOP
        EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I',
            relation, name, 'users_' || substr(name, length('users_next_') + 1));
    END LOOP;
END
$$
"""
# Whole or not at all: it has its key when it has its rows. An erasure waits for it, or it for the erasure, whose
# tombstone it then reads: each locks the build first.
_FILL: Final = """
DO $$
BEGIN
    PERFORM 1 FROM read_model.builds b WHERE b.state = 'building' FOR UPDATE;
    INSERT INTO {table} {rows};
    ALTER TABLE {table} ADD CONSTRAINT {key} PRIMARY KEY (id);
END
$$
"""
_PLACES: Final = f"""(id, updated_at, status, roles)
    SELECT id, CASE WHEN deleted_at IS NULL THEN updated_at END, status, roles FROM {NEXT} ORDER BY updated_at, id
"""  # noqa: S608 - constants
_NAMES: Final = f"""(id, name)
    SELECT id, read_model.folded(' ' || display_name) FROM {NEXT} WHERE display_name IS NOT NULL ORDER BY id
"""  # noqa: S608 - constants
_TABLES: Final = (users, users_updated, users_names)


def _next_table(declared: Table) -> Table:
    """A declared table under its name beside the live one, without a primary key: rows go in faster."""
    name = declared.name.replace("users", "users_next", 1)
    table = declared.to_metadata(MetaData(schema=declared.schema), name=name)
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
    """Make the tables, empty and without indexes."""
    statements: list[bytes] = []
    for declared in _TABLES:
        table = _next_table(declared)
        name = f"{table.schema}.{table.name}"
        statements += [_compiled(CreateTable(table)), _compiled(SetTableComment(table))]
        if fillfactor := declared.info.get("fillfactor"):
            statements.append(f"ALTER TABLE {name} SET (fillfactor = {fillfactor})".encode())
        statements += [
            f"ALTER TABLE {name} ALTER COLUMN {column.name} SET STATISTICS {column.info['statistics']}".encode()
            for column in table.columns
            if "statistics" in column.info
        ]
        statements.append(f"GRANT SELECT ON {name} TO {READERS}".encode())
    return statements


def indexed() -> Mapping[str, bytes]:
    """Give the table of users its primary key, fill the others, then the indexes, by their names until the swap."""
    key = ", ".join(column.name for column in users.primary_key)
    statements = {
        "users_next_pkey": f"ALTER TABLE {NEXT} ADD CONSTRAINT users_next_pkey PRIMARY KEY ({key})".encode(),
    }
    for table, key, rows in (
        (NEXT_UPDATED, "users_next_updated_pkey", _PLACES),
        (NEXT_NAMES, "users_next_names_pkey", _NAMES),
    ):
        statements[key] = _FILL.format(table=table, key=key, rows=rows).encode()
    for table in map(_next_table, _TABLES):
        for index in _indexes(table):
            index.name = quoted_name(_next_name(index), quote=None)
            statements[str(index.name)] = _compiled(CreateIndex(index))
    return statements


def swapped() -> Sequence[bytes]:
    """Put them in the live tables' place, under the declared names."""
    indexes = [index for table in _TABLES for index in _indexes(table)]
    return [
        b"DROP TABLE read_model.users, read_model.users_updated, read_model.users_names",
        f"ALTER TABLE {NEXT} RENAME TO users".encode(),
        f"ALTER TABLE {NEXT_UPDATED} RENAME TO users_updated".encode(),
        f"ALTER TABLE {NEXT_NAMES} RENAME TO users_names".encode(),
        *(f"ALTER INDEX read_model.{_next_name(index)} RENAME TO {index.name}".encode() for index in indexes),
        _TAKE_PLACE.encode(),
    ]


def fingerprint() -> str:
    """Names the declared table: another column, index or shape has another one."""
    declared = b"\0".join([str(SHAPE).encode(), *created(), *indexed().values()])
    return hashlib.sha256(declared).hexdigest()[:16]
