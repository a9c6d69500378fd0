"""The migrations make exactly the read-model table that projector/read_model.py declares."""

import pytest
from sqlalchemy import Column, Computed, Engine, MetaData, create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.pool import NullPool

from projector import read_model
from runtime.database import sqlalchemy_url

DIALECT = postgresql.dialect()


@pytest.fixture
def engine(database_url: str) -> Engine:
    return create_engine(sqlalchemy_url(database_url), poolclass=NullPool)


def shape(column: "Column[object]") -> tuple[str, bool, bool, bool]:
    return (
        column.type.compile(dialect=DIALECT),
        bool(column.nullable),
        column.primary_key,
        isinstance(column.server_default, Computed),
    )


def test_the_declared_tables_are_those_that_the_migrations_make(engine: Engine) -> None:
    made = MetaData(schema="read_model")
    made.reflect(engine)
    for name, declared in read_model.metadata.tables.items():
        shapes = [{column.name: shape(column) for column in table.columns} for table in (declared, made.tables[name])]
        assert shapes[0] == shapes[1]
        assert list(shapes[0]) == list(shapes[1])


def test_the_search_column_is_computed_as_declared(engine: Engine) -> None:
    with engine.connect() as connection:
        made = connection.exec_driver_sql(
            "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef"
            " WHERE adrelid = 'read_model.users'::regclass AND adnum ="
            " (SELECT attnum FROM pg_attribute WHERE attrelid = 'read_model.users'::regclass AND attname = 'search')"
        ).scalar_one()
        computed = read_model.users.c.search.computed
        assert computed is not None
        connection.exec_driver_sql(
            "CREATE TEMPORARY TABLE declared (email text, display_name text, search text"
            f" GENERATED ALWAYS AS ({computed.sqltext}) STORED)"
        )
        declared = connection.exec_driver_sql(
            "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 'declared'::regclass"
        ).scalar_one()
    assert made == declared
