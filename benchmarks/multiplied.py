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
from typing import LiteralString, cast

import psycopg
from psycopg import sql
from run import say

TABLES = ("log.events", "log.user_keys", "log.email_claims", "read_model.users")
# at once: as many as the server has cores for
CONNECTIONS = 2
SLICES = 40
# which copy it is goes into 16 of a UUIDv7's random bits: the original's own are never met, as `n` is not 0 there
COPIED = """
(left({id}::text, 24) || lpad(to_hex(('x' || substr({id}::text, 25, 4))::bit(16)::integer # n), 4, '0')
    || right({id}::text, 8))::uuid
"""
# a copy `n` of what was at a position; 0 is the original, which an operator finds again by its position
PLACED = "(b.position - 1) * %(times)s + 1 + n"
COPIES = {
    "log.events": f"""
        SELECT {PLACED}, CASE WHEN n = 0 THEN b.user_id ELSE {COPIED.format(id="b.user_id")} END, b.version, b.type,
            b.schema, CASE WHEN n = 0 THEN b.event_id ELSE uuidv7() END, b.data, b.sealed, b.metadata, b.recorded_at
    """,
    "log.user_keys": f"""
        SELECT CASE WHEN n = 0 THEN b.user_id ELSE {COPIED.format(id="b.user_id")} END, b.wrapped, b.kek_id, b.erased_at
    """,
    "log.email_claims": f"""
        SELECT CASE WHEN n = 0 THEN b.email_key ELSE sha256(b.email_key || int4send(n)) END,
            CASE WHEN n = 0 THEN b.user_id ELSE {COPIED.format(id="b.user_id")} END, b.email_key_next
    """,
    "read_model.users": f"""
        SELECT CASE WHEN n = 0 THEN b.id ELSE {COPIED.format(id="b.id")} END,
            CASE WHEN n = 0 THEN b.email ELSE replace(b.email, '@', '.' || n || '@') END,
            CASE WHEN n = 0 THEN b.email_canonical ELSE replace(b.email_canonical, '@', '.' || n || '@') END,
            b.display_name, b.status, b.roles, b.attributes, b.created_at, b.updated_at, b.password_changed_at,
            b.deleted_at, b.version, {PLACED}
    """,
}
COLUMNS = """
SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""
INDEXES = """
SELECT i.indexrelid::regclass::text, c.relname, pg_get_indexdef(i.indexrelid), k.conname, k.contype
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u')
WHERE i.indrelid = %s::regclass
"""
KINDS = {"p": "PRIMARY KEY", "u": "UNIQUE"}


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
    name = sql.Identifier(*table.split("."))
    base = sql.Identifier("seed", table.replace(".", "_"))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS seed")
        order = "position" if table == "log.events" else "1"
        connection.execute(
            sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT row_number() OVER () AS place, t.* FROM (").format(base)
            + sql.SQL("SELECT * FROM {} ORDER BY {}) t").format(name, sql.SQL(order))
        )
        connection.execute(sql.SQL("CREATE INDEX ON {} (place)").format(base))
        connection.execute(sql.SQL("ANALYZE {}").format(base))
        ((rows,),) = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(base)).fetchall()
        indexes = connection.execute(INDEXES, (table,)).fetchall()
        ((columns,),) = connection.execute(COLUMNS, (table,)).fetchall()
        for index, _, _, constraint, _ in indexes:
            connection.execute(
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(name, sql.Identifier(constraint))
                if constraint
                else sql.SQL("DROP INDEX {}").format(sql.Identifier(*index.split(".")))
            )
        connection.execute(sql.SQL("TRUNCATE {}").format(name))
    insert = sql.SQL(
        "INSERT INTO {} ({}) {} FROM {} b CROSS JOIN LATERAL generate_series(0, %(times)s - 1) AS n"
        " WHERE b.place > %(after)s AND b.place <= %(to)s ORDER BY b.place, n"
    ).format(
        name,
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(cast("LiteralString", COPIES[table])),
        base,
    )
    edges = [rows * n // SLICES for n in range(SLICES + 1)]
    slices = [{"times": times, "after": after, "to": to} for after, to in itertools.pairwise(edges)]
    statements = [(insert, parameters) for parameters in slices]
    _together(database_url, statements)
    _together(database_url, [(sql.SQL(cast("LiteralString", definition)), None) for _, _, definition, _, _ in indexes])
    with psycopg.connect(database_url, autocommit=True) as connection:
        for _, index, _, constraint, kind in indexes:
            if constraint:
                connection.execute(
                    sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {} USING INDEX {}").format(
                        name,
                        sql.Identifier(constraint),
                        sql.SQL(cast("LiteralString", KINDS[kind])),
                        sql.Identifier(index),
                    )
                )
        connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(name))
    return rows * times


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
