"""`read_model.project`: a batch whole or not at all, into whatever table is live."""

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest
from psycopg import errors
from psycopg.rows import dict_row

from migrations.files import SQL
from projector import table_ddl
from projector.model_store import PROJECT
from projector.read_model import SHAPE
from projector.rows import Row
from tests.databases import as_role
from tests.waiting import eventually

Connection = psycopg.Connection[dict[str, Any]]
ADA, BOB = UUID(int=1), UUID(int=2)
AT = "2026-01-01T00:00:00.000000Z"


def row(user: UUID, version: int, *, first: int | None = None, **more: object) -> Row:
    found = {
        "id": str(user),
        "version": version,
        "first": version if first is None else first,
        "position": version,
        "email": f"{user.int}@example.com",
        "email_canonical": f"{user.int}@example.com",
        "display_name": f"version {version}",
        "status": "active",
        "roles": ["user"],
        "attributes": {"team": "engines"},
        "created_at": AT,
        "updated_at": AT,
        "deleted_at": None,
        "password_changed_at": AT,
    }
    return found | more


def step(partition: int, from_offset: int, next_offset: int, *, epoch: int | None = None) -> dict[str, int | None]:
    return {
        "partition": partition,
        "from_offset": from_offset,
        "next_offset": next_offset,
        "position": next_offset,
        "epoch": epoch,
    }


def project(
    connection: Connection, rows: list[Row], *steps: dict[str, int | None], strict: bool = True, shape: int = SHAPE
) -> list[dict[str, Any]]:
    values = (orjson.dumps(rows).decode(), orjson.dumps(steps).decode(), strict, shape)
    return connection.execute(PROJECT, values, prepare=True).fetchall()


def shown(owner: Connection, column: bytes = b"display_name") -> dict[UUID, object]:
    rows = owner.execute(b"SELECT id, " + column + b" AS shown FROM read_model.users").fetchall()
    return {row["id"]: row["shown"] for row in rows}


def offsets(owner: Connection) -> list[int]:
    rows = owner.execute("SELECT next_offset FROM read_model.progress ORDER BY partition").fetchall()
    return [row["next_offset"] for row in rows]


@pytest.fixture
def connect(owner: Connection, database_url: str) -> Iterator[Callable[[], Connection]]:
    """Projectors' sessions; two partitions stand before offset 0."""
    owner.execute("INSERT INTO read_model.progress (partition, next_offset, position) VALUES (0, 0, 0), (1, 0, 0)")
    opened: list[Connection] = []

    def one() -> Connection:
        opened.append(
            Connection.connect(as_role(database_url, "muster_projector"), autocommit=True, row_factory=dict_row)
        )
        return opened[-1]

    yield one
    for connection in opened:
        connection.close()


@pytest.fixture(params=["declared", "wider", "narrower"])
def projector(connect: Callable[[], Connection], owner: Connection, request: pytest.FixtureRequest) -> Connection:
    """A projector's session, which has its plans from when the table was the declared one."""
    connection = connect()
    assert project(connection, []) == []
    match request.param:
        case "wider":
            owner.execute("ALTER TABLE read_model.users ADD COLUMN team text")
        case "narrower":
            owner.execute("ALTER TABLE read_model.users DROP COLUMN password_changed_at")
        case _:
            pass
    return connection


def test_rows_and_offsets_move_on_together(projector: Connection, owner: Connection) -> None:
    assert project(projector, [row(BOB, 1), row(ADA, 1)], step(0, 0, 5), step(1, 0, 7, epoch=2)) == []
    assert project(projector, [row(ADA, 3, first=2)], step(0, 5, 6)) == []
    assert shown(owner) == {ADA: "version 3", BOB: "version 1"}
    progress = owner.execute("SELECT partition, next_offset, position, epoch FROM read_model.progress ORDER BY 1")
    assert [tuple(row.values()) for row in progress] == [(0, 6, 6, 0), (1, 7, 7, 2)]


def test_every_column_that_the_table_has_is_written(projector: Connection, owner: Connection) -> None:
    for version in (1, 2):
        values = row(ADA, version, roles=["user", f"r{version}"], attributes={"n": version}, unknown=1)
        assert project(projector, [values], step(0, version - 1, version)) == []
    [held] = owner.execute("SELECT to_jsonb(u) AS held FROM read_model.users u").fetchall()
    found = held["held"]
    assert found.pop("team", None) is None
    expected = {name: values[name] for name in found}
    assert {*values} - {*expected} - {"password_changed_at"} == {"first", "unknown"}
    assert {name: _moment(value) for name, value in found.items()} == {
        name: _moment(value) for name, value in expected.items()
    }


def _moment(value: object) -> object:
    """However it is written."""
    return datetime.fromisoformat(value) if isinstance(value, str) and value.startswith("2026-") else value


def test_nothing_is_applied_when_a_version_is_missing(projector: Connection, owner: Connection) -> None:
    missing = project(projector, [row(ADA, 1), row(BOB, 4, first=3)], step(0, 0, 5))
    assert missing == [{"user_id": BOB, "held": 0, "got": 3}]
    assert (shown(owner), offsets(owner)) == ({}, [0, 0])
    assert project(projector, [row(ADA, 1), row(BOB, 4, first=3)], step(0, 0, 5), strict=False) == []
    assert (shown(owner), offsets(owner)) == ({ADA: "version 1", BOB: "version 4"}, [5, 0])


def test_a_missing_version_is_told_before_a_value_that_the_table_does_not_take(
    projector: Connection, owner: Connection
) -> None:
    rows = [row(ADA, 1, created_at="never"), row(BOB, 2)]
    assert project(projector, rows, step(0, 0, 5)) == [{"user_id": BOB, "held": 0, "got": 2}]
    with pytest.raises(psycopg.DataError):
        project(projector, rows[:1], step(0, 0, 5))
    assert (shown(owner), offsets(owner)) == ({}, [0, 0])


def test_what_was_discarded_is_not_missing(projector: Connection, owner: Connection) -> None:
    owner.execute(
        "INSERT INTO log.discarded (position, user_id, version, operator, reason)"
        " VALUES (1, %s, 1, 'a test', 'a test')",
        (ADA,),
    )
    assert project(projector, [row(ADA, 2)], step(0, 0, 5)) == []
    assert project(projector, [row(ADA, 4)], step(0, 5, 6)) == [{"user_id": ADA, "held": 2, "got": 4}]
    assert shown(owner) == {ADA: "version 2"}


def test_a_parked_user_is_left_as_they_are(projector: Connection, owner: Connection) -> None:
    owner.execute(
        "INSERT INTO read_model.parked (user_id, version, source, partition, reason)"
        " VALUES (%s, 1, 'log', 0, 'a test')",
        (ADA,),
    )
    assert project(projector, [row(ADA, 3), row(BOB, 1)], step(0, 0, 5)) == []
    assert (shown(owner), offsets(owner)) == ({BOB: "version 1"}, [5, 0])


def test_an_older_version_replaces_nothing(projector: Connection, owner: Connection) -> None:
    assert project(projector, [row(ADA, 3)], step(0, 0, 5), strict=False) == []
    assert project(projector, [row(ADA, 2)], step(0, 5, 6)) == []
    assert (shown(owner), offsets(owner)) == ({ADA: "version 3"}, [6, 0])


def test_the_order_by_update_follows_the_rows(projector: Connection, owner: Connection) -> None:
    times = [f"2026-01-0{day}T00:00:00.000000Z" for day in range(1, 6)]
    rows = [row(ADA, 2, updated_at=times[1], roles=["admin"]), row(BOB, 1, updated_at=times[2], status="disabled")]
    assert project(projector, rows, step(0, 0, 5), strict=False) == []
    assert ordered(owner) == {ADA: (times[1], "active", ["admin"]), BOB: (times[2], "disabled", ["user"])}
    gone = row(BOB, 2, updated_at=times[4], deleted_at=times[4], email=None, roles=None, status=None)
    rows = [row(ADA, 1, updated_at=times[0]), gone]
    assert project(projector, rows, step(0, 5, 6)) == []
    assert ordered(owner) == {ADA: (times[1], "active", ["admin"]), BOB: (None, None, None)}
    assert project(projector, [row(ADA, 3, updated_at=times[3], roles=[])], step(0, 6, 7)) == []
    assert ordered(owner) == {ADA: (times[3], "active", []), BOB: (None, None, None)}


def test_the_migrations_fill_the_tables_beside_that_of_users(projector: Connection, owner: Connection) -> None:
    gone = row(BOB, 1, deleted_at=AT, email=None, display_name=None)
    assert project(projector, [row(ADA, 1, display_name="E\u0301va"), gone], step(0, 0, 5)) == []
    owner.execute("DROP TABLE read_model.users_updated, read_model.users_names")
    owner.execute("DROP FUNCTION read_model.folded CASCADE")
    owner.execute(
        "ALTER TABLE read_model.users ADD COLUMN search text GENERATED ALWAYS AS (lower(display_name)) STORED"
    )
    owner.execute("CREATE INDEX users_updated_at_idx ON read_model.users (updated_at, id)")
    for migration in ("updated_order", "names"):
        with owner.transaction():
            owner.execute((SQL / f"{migration}.sql").read_bytes())
    assert ordered(owner) == {ADA: (AT, "active", ["user"]), BOB: (None, "active", ["user"])}
    assert named(owner) == {ADA: " \u00e9va"}
    after = row(ADA, 2, updated_at="2026-01-02T00:00:00.000000Z", roles=[])
    assert project(projector, [after], step(0, 5, 6)) == []
    assert ordered(owner)[ADA] == ("2026-01-02T00:00:00.000000Z", "active", [])
    assert named(owner) == {ADA: " version 2"}


def test_names_are_held_as_searches_compare_them(projector: Connection, owner: Connection) -> None:
    names = ["Ada", "\u00c4RGER", "Jose\u0301", None, "Bob B", None]
    for version, name in enumerate(names, start=1):
        assert project(projector, [row(ADA, version, display_name=name)], step(0, version - 1, version)) == []
        assert named(owner)[ADA] == [" ada", " \u00e4rger", " jos\u00e9", None, " bob b", None][version - 1]
    assert project(projector, [row(BOB, 1, display_name=None)], step(0, len(names), 99)) == []
    assert BOB not in named(owner)


def named(owner: Connection) -> dict[UUID, str | None]:
    return {row["id"]: row["name"] for row in owner.execute("SELECT id, name FROM read_model.users_names")}


def ordered(owner: Connection) -> dict[UUID, tuple[str | None, str | None, list[str] | None]]:
    rows = owner.execute("""
        SELECT id, to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at, status, roles
        FROM read_model.users_updated
    """)
    return {row["id"]: (row["at"], row["status"], row["roles"]) for row in rows}


@pytest.mark.parametrize(
    ("changes", "hot"),
    [
        ({"attributes": {"n": 1}}, 1),
        ({"password_changed_at": None}, 1),
        ({"display_name": "other"}, 1),
        ({"email": "other@example.com"}, 0),
    ],
)
def test_a_change_makes_new_entries_only_in_indexes_of_what_it_changes(
    projector: Connection, owner: Connection, changes: dict[str, object], hot: int
) -> None:
    before = row(ADA, 1)
    assert project(projector, [before], step(0, 0, 1)) == []
    after: Row = {**before, "version": 2, "first": 2, "updated_at": "2026-01-02T00:00:00.000000Z", **changes}
    assert project(projector, [after], step(0, 1, 2)) == []
    projector.execute("SELECT pg_stat_force_next_flush()")
    [found] = owner.execute("""
        SELECT n_tup_upd AS updated, n_tup_hot_upd AS hot FROM pg_stat_user_tables
        WHERE relid = 'read_model.users'::regclass
    """).fetchall()
    assert found == {"updated": 1, "hot": hot}


@pytest.mark.parametrize("moved", [[step(0, 0, 5), step(1, 3, 5)], [step(0, 0, 5), step(2, 0, 5)]])
def test_partitions_that_do_not_stand_there_are_not_moved(
    projector: Connection, owner: Connection, moved: list[dict[str, int | None]]
) -> None:
    with pytest.raises(psycopg.Error) as raised:
        project(projector, [row(ADA, 1)], *moved)
    assert raised.value.sqlstate == "MU002"
    assert (shown(owner), offsets(owner)) == ({}, [0, 0])


def test_a_newer_shape_is_left_alone(projector: Connection, owner: Connection) -> None:
    with pytest.raises(psycopg.Error) as raised:
        project(projector, [row(ADA, 1)], step(0, 0, 5), shape=SHAPE - 1)
    assert raised.value.sqlstate == "MU001"
    assert (shown(owner), offsets(owner)) == ({}, [0, 0])


def test_a_session_writes_every_table_that_takes_the_live_ones_place(
    connect: Callable[[], Connection], owner: Connection
) -> None:
    projector, swapper = connect(), connect()
    team = b"ALTER TABLE read_model.users_next ADD COLUMN team text"
    less = b"ALTER TABLE read_model.users_next DROP COLUMN password_changed_at"
    for number, change in enumerate([None, team, less, None]):
        for statement in (*table_ddl.created(), *table_ddl.indexed().values()):
            swapper.execute(statement)
        if change is not None:
            swapper.execute(change)
        with swapper.transaction():
            for statement in table_ddl.swapped():
                swapper.execute(statement)
        rows = [row(ADA, 1, team="engines"), row(BOB, 1, team="wings")]
        assert project(projector, rows, step(0, number, number + 1)) == []
        if change is team:
            assert shown(owner, b"team") == {ADA: "engines", BOB: "wings"}
        assert shown(owner) == {ADA: "version 1", BOB: "version 1"}


@pytest.mark.parametrize(("from_offset", "state"), [(0, "MU002"), (5, None)])
def test_who_waits_for_a_partition_is_judged_by_where_it_stands_then(
    connect: Callable[[], Connection], owner: Connection, from_offset: int, state: str | None
) -> None:
    first, second = connect(), connect()
    told: list[str | None] = []

    def wait() -> None:
        try:
            project(second, [row(ADA, 2)], step(0, from_offset, 9))
        except errors.DatabaseError as error:
            told.append(error.sqlstate)
        else:
            told.append(None)

    waiting = threading.Thread(target=wait)
    with first.transaction():
        assert project(first, [row(ADA, 1)], step(0, 0, 5)) == []
        waiting.start()
        pid = (second.info.backend_pid,)
        eventually(
            lambda: owner.execute("SELECT pg_blocking_pids(%s) <> '{}' AS held", pid).fetchall() == [{"held": True}],
            what="the second waits for the first",
        )
    waiting.join()
    assert told == [state]
    assert (shown(owner), offsets(owner)) == (
        {ADA: "version 1" if state else "version 2"},
        [5 if state else 9, 0],
    )
