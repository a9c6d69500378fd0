"""A log that was seeded, and its read model, made many times as big by SQL, as sealing millions of events takes long.

Each event and each user stands for `times` of them: itself and copies of other ids, which lie between it and the next.
A copy's row has everything that an original's has and is as long; only nobody can open what is sealed in it, since
that is bound to the original's id. So appends, look-ups, lists, the relay and the projector go on as with any log of
this size, and what would open every event (`muster verify`, a rebuild) does not.
"""

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import LiteralString, cast

import psycopg
from psycopg import sql
from run import say

TABLES = (
    "log.events",
    "log.user_keys",
    "log.email_claims",
    "read_model.users",
    "read_model.users_updated",
    "read_model.users_names",
)
# at once: as many as the server has cores for
CONNECTIONS = 2
SLICES = 40
# which copy it is goes into 16 of a UUIDv7's random bits: the original's own are never met, as `n` is not 0 there
COPIED = """
(left({id}::text, 24) || lpad(to_hex(('x' || substr({id}::text, 25, 4))::bit(16)::integer # n), 4, '0')
    || right({id}::text, 8))::uuid
"""
PLACED = "(b.position - 1) * %(times)s + 1 + n"
MARKED = "replace({}, '@', '.' || n || '@')"
# what differs in the copy `n`; of the original, which is 0, only the position
POSITIONS = {"log.events": PLACED, "read_model.users": PLACED}
COPIES = {
    "log.events": {"user_id": COPIED.format(id="b.user_id"), "event_id": "uuidv7()"},
    "log.user_keys": {"user_id": COPIED.format(id="b.user_id")},
    "log.email_claims": {
        "email_key": "sha256(b.email_key || int4send(n))",
        "user_id": COPIED.format(id="b.user_id"),
    },
    "read_model.users": {
        "id": COPIED.format(id="b.id"),
        "email": MARKED.format("b.email"),
        "email_canonical": MARKED.format("b.email_canonical"),
    },
    "read_model.users_updated": {"id": COPIED.format(id="b.id")},
    "read_model.users_names": {"id": COPIED.format(id="b.id")},
}
COLUMNS = """
SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""
INDEXES = """
SELECT c.relnamespace::regnamespace::text, c.relname, pg_get_indexdef(i.indexrelid), k.conname, k.contype
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u')
WHERE i.indrelid = %s::regclass
"""
KINDS = {"p": "PRIMARY KEY", "u": "UNIQUE"}


@dataclass(frozen=True, slots=True)
class Index:
    """`constraint` is what it belongs to, if anything, of a `kind` as pg_constraint has it."""

    schema: str
    name: str
    definition: str
    constraint: str | None
    kind: str | None

    def dropped(self, table: sql.Identifier) -> sql.Composed:
        if self.constraint is None:
            return sql.SQL("DROP INDEX {}").format(sql.Identifier(self.schema, self.name))
        return sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(self.constraint))

    def named(self, table: sql.Identifier) -> sql.Composed:
        """Make its index, which is there again, the constraint's."""
        assert self.constraint is not None
        assert self.kind is not None
        return sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {} USING INDEX {}").format(
            table, sql.Identifier(self.constraint), _sql(KINDS[self.kind]), sql.Identifier(self.name)
        )


def multiply(database_url: str, times: int) -> None:
    """As the owner, with nobody else connected. The sorted indexes are as good as new afterwards."""
    for table in TABLES:
        began = time.monotonic()
        rows = _multiply(database_url, table, times)
        say(f"{rows:,} rows of {table} in {time.monotonic() - began:.0f} s")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE log.head SET position = position * %s", (times,))
        connection.execute("UPDATE read_model.progress SET position = position * %s", (times,))
        connection.execute("DROP SCHEMA seed CASCADE")


def _multiply(database_url: str, table: str, times: int) -> int:
    """Give the number of rows. They are put into a bare table, whose indexes are made anew after that."""
    name = sql.Identifier(*table.split("."))
    with psycopg.connect(database_url, autocommit=True) as connection:
        base, count = _kept(connection, table)
        indexes = [Index(*row) for row in connection.execute(INDEXES, (table,)).fetchall()]
        ((columns,),) = connection.execute(COLUMNS, (table,)).fetchall()
        for index in indexes:
            connection.execute(index.dropped(name))
        connection.execute(sql.SQL("TRUNCATE {}").format(name))
    insert = sql.SQL(
        "INSERT INTO {} ({}) SELECT {} FROM {} b CROSS JOIN LATERAL generate_series(0, %(times)s - 1) AS n"
        " WHERE b.place > %(after)s AND b.place <= %(to)s ORDER BY b.place, n"
    ).format(
        name,
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join([_value(table, column) for column in columns]),
        base,
    )
    edges = [count * n // SLICES for n in range(SLICES + 1)]
    slices = [{"times": times, "after": after, "to": to} for after, to in itertools.pairwise(edges)]
    _together(database_url, [(insert, parameters) for parameters in slices])
    _together(database_url, [(_sql(index.definition), None) for index in indexes])
    with psycopg.connect(database_url, autocommit=True) as connection:
        for index in indexes:
            if index.constraint is not None:
                connection.execute(index.named(name))
        connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(name))
    return count * times


def _kept(connection: psycopg.Connection, table: str) -> tuple[sql.Identifier, int]:
    """The rows that are there, numbered in a table of their own; and how many they are."""
    base = sql.Identifier("seed", table.replace(".", "_"))
    order = "position" if table in POSITIONS else "user_id" if "user_id" in COPIES[table] else "id"
    connection.execute("CREATE SCHEMA IF NOT EXISTS seed")
    connection.execute(
        sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT row_number() OVER (ORDER BY {}) AS place, t.* FROM {} t").format(
            base, sql.Identifier(order), sql.Identifier(*table.split("."))
        )
    )
    connection.execute(sql.SQL("CREATE INDEX ON {} (place)").format(base))
    connection.execute(sql.SQL("ANALYZE {}").format(base))
    ((count,),) = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(base)).fetchall()
    return base, count


def _value(table: str, column: str) -> sql.Composable:
    if column == "position":
        return _sql(POSITIONS[table])
    own = sql.SQL("b.{}").format(sql.Identifier(column))
    if column not in COPIES[table]:
        return own
    return sql.SQL("CASE WHEN n = 0 THEN {} ELSE {} END").format(own, _sql(COPIES[table][column]))


def _sql(text: str) -> sql.SQL:
    """For what is made of this module's constants, or was told by the server."""
    return sql.SQL(cast("LiteralString", text))


def _together(database_url: str, statements: Sequence[tuple[sql.Composable, object]]) -> None:
    def run(mine: Sequence[tuple[sql.Composable, object]]) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            for setting in ("synchronous_commit = off", "maintenance_work_mem = '1GB'", "work_mem = '256MB'"):
                connection.execute(f"SET {setting}".encode())
            for statement, parameters in mine:
                connection.execute(statement, parameters)  # pyright: ignore[reportArgumentType]

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for done in [pool.submit(run, statements[first::CONNECTIONS]) for first in range(CONNECTIONS)]:
            done.result()
