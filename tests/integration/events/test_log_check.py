"""Whatever is done to the log by SQL is found, at the first position that it touches."""

import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import pytest
from psycopg.rows import dict_row

from events.proofs.log_check import Checked, check_log
from events.proofs.notes import Checkpoint, Signer
from runtime.database import Connection
from runtime.settings import Settings
from tests.databases import MakeSettings
from tests.histories import History
from tests.signed_trees import ORIGIN, SEED, forget_and_sign, grow_and_sign

USERS, CHANGED = 30, 20
EVENTS = USERS + CHANGED
SIGNED = 45
TAMPERINGS = 300

Tamper = Callable[[Connection, random.Random], Awaitable[int]]


@pytest.fixture
async def signing(make_settings: MakeSettings) -> Settings:
    return make_settings("muster_command")


@pytest.fixture
async def log(signing: Settings, history: History) -> History:
    """A log that was signed at several sizes, and has events behind the last of them."""
    history.create(range(USERS))
    await grow_and_sign(signing)
    history.change(range(SIGNED - USERS), display_name="Another")
    await grow_and_sign(signing)
    history.change(range(SIGNED - USERS, CHANGED), display_name="Another")
    return history


@asynccontextmanager
async def one_moment(url: str) -> AsyncGenerator[Connection]:
    """A transaction of the owner's that comes to nothing."""
    async with (
        await Connection.connect(url, row_factory=dict_row) as connection,
        connection.transaction(force_rollback=True),
    ):
        yield connection


async def checked(url: str, **known: Any) -> Checked:  # noqa: ANN401 - what check_log takes
    async with one_moment(url) as connection:
        return await check_log(connection, **known)


@pytest.mark.usefixtures("log")
async def test_a_log_that_nobody_touched(database_url: str) -> None:
    found = await checked(database_url)
    assert found.wrong is None
    assert (found.events, found.tree, found.checkpoints, found.proved) == (EVENTS, SIGNED, 2, SIGNED)


async def test_an_empty_log(database_url: str) -> None:
    assert (await checked(database_url)).wrong is None


async def change_event(connection: Connection, chance: random.Random) -> int:
    position = chance.randrange(1, SIGNED + 1)
    changes: list[LiteralString] = [
        "sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1)",
        "sealed = sealed || '\\x00'",
        "data = jsonb_set(data, '{record,status}', '\"disabled\"')",
        "metadata = jsonb_set(metadata, '{actor,subject}', '\"eve\"')",
        'metadata = metadata || \'{"reason": "none"}\'',
        "recorded_at = recorded_at + interval '1 microsecond'",
        "event_id = gen_random_uuid()",
        "user_id = gen_random_uuid()",
        "schema = schema + 1",
        "type = type || 'd'",
        "version = version + 1",
    ]
    await connection.execute(f"UPDATE log.events SET {chance.choice(changes)} WHERE position = %s", (position,))
    return position


async def delete_event(connection: Connection, chance: random.Random) -> int:
    position = chance.randrange(1, SIGNED)
    await connection.execute("DELETE FROM log.events WHERE position = %s", (position,))
    if chance.randrange(2):
        # and close the gap
        await connection.execute("UPDATE log.events SET position = -position WHERE position > %s", (position,))
        await connection.execute("UPDATE log.events SET position = -position - 1 WHERE position < 0")
    return position


async def truncate(connection: Connection, chance: random.Random) -> int:
    position = chance.randrange(1, SIGNED + 1)
    await connection.execute("DELETE FROM log.events WHERE position >= %s", (position,))
    if chance.randrange(2):
        await connection.execute("UPDATE log.head SET position = %s", (position - 1,))
    return position


async def swap(connection: Connection, chance: random.Random) -> int:
    one, two = sorted(chance.sample(range(1, SIGNED + 1), 2))
    swaps: list[LiteralString] = ["sealed = o.sealed", "data = o.data", "user_id = o.user_id, version = o.version"]
    # of two events that differ in it
    query = f"""
    UPDATE log.events e SET {chance.choice(swaps)} FROM log.events o
    WHERE (e.position, o.position) IN ((%(one)s, %(two)s), (%(two)s, %(one)s))
        AND e.data <> o.data AND e.sealed <> o.sealed
    """
    cursor = await connection.execute(query, {"one": one, "two": two})
    return one if cursor.rowcount else await change_event(connection, chance)


async def insert(connection: Connection, chance: random.Random) -> int:
    position = chance.randrange(1, SIGNED + 1)
    await connection.execute("UPDATE log.events SET position = -position WHERE position >= %s", (position,))
    await connection.execute("UPDATE log.events SET position = 1 - position WHERE position < 0")
    await connection.execute(
        "INSERT INTO log.events SELECT %s, gen_random_uuid(), 1, type, schema, gen_random_uuid(), data, sealed,"
        " metadata, recorded_at FROM log.events WHERE position = 1 + %s",
        (position, position),
    )
    await connection.execute("UPDATE log.head SET position = position + 1")
    return position


async def alter_tile(connection: Connection, chance: random.Random) -> int:
    offset = chance.randrange(SIGNED * 32)
    await connection.execute(
        "UPDATE log.tiles SET hashes = set_byte(hashes, %(at)s, get_byte(hashes, %(at)s) # 1)", {"at": offset}
    )
    return offset // 32 + 1


async def alter_checkpoint(connection: Connection, chance: random.Random) -> int:
    changes: list[LiteralString] = [
        "root = set_byte(root, 3, get_byte(root, 3) # 1)",
        "note = replace(note, '\n30\n', '\n31\n')",
        "size = 29",
        "note = reverse(note)",
    ]
    await connection.execute(f"UPDATE log.checkpoints SET {chance.choice(changes)} WHERE size = 30")
    return 30


TAMPERERS: tuple[Tamper, ...] = (change_event, delete_event, truncate, swap, insert, alter_tile, alter_checkpoint)


@pytest.mark.parametrize("tamper", TAMPERERS, ids=lambda tamper: tamper.__name__)
async def test_every_tampering_is_found(log: History, database_url: str, tamper: Tamper) -> None:
    # what stands in the way of who owns the database for a moment only
    log.owner.execute("ALTER TABLE log.events DROP CONSTRAINT events_user_id_version_key")
    chance = random.Random(tamper.__name__)  # noqa: S311 - no secret
    for _ in range(TAMPERINGS // len(TAMPERERS)):
        async with one_moment(database_url) as connection:
            touched = await tamper(connection, chance)
            found = await check_log(connection)
            assert found.wrong is not None
            # a checkpoint that was given another size is met there
            assert found.wrong.position in ({touched} if tamper is not alter_checkpoint else {29, 30})
    assert (await checked(database_url)).wrong is None


async def test_an_upper_tile_that_was_altered(history: History, signing: Settings, database_url: str) -> None:
    history.create(range(600))
    await grow_and_sign(signing)
    assert (await checked(database_url)).wrong is None
    history.owner.execute("UPDATE log.tiles SET hashes = set_byte(hashes, 33, 0) WHERE level = 1")
    history.owner.execute("UPDATE log.tiles SET hashes = set_byte(hashes, 33, 1) WHERE level = 1")
    found = await checked(database_url)
    assert found.wrong is not None
    assert found.wrong.what == "tile 1/0 of the tree is not made of the hashes below it"


async def test_the_head_says_another_end(log: History, database_url: str) -> None:
    log.owner.execute("UPDATE log.head SET position = position + 1")
    found = await checked(database_url)
    assert found.wrong is not None
    assert found.wrong.position == EVENTS + 1


async def test_a_history_that_was_written_anew_whole(log: History, signing: Settings, database_url: str) -> None:
    """Who has the database and the KEK can sign another history: only a checkpoint kept elsewhere tells."""
    known = await grow_and_sign(signing)
    log.owner.execute("UPDATE log.events SET event_id = gen_random_uuid() WHERE position = 3")
    await forget_and_sign(log.owner, signing)
    assert (await checked(database_url)).wrong is None
    found = await checked(database_url, known=[known])
    assert found.wrong is not None
    assert "the history was forked" in found.wrong.what


@pytest.mark.usefixtures("log")
async def test_a_rollback_to_before_a_checkpoint_that_somebody_kept(database_url: str) -> None:
    known = Checkpoint(ORIGIN, EVENTS + 10, bytes(32))
    found = await checked(database_url, known=[known])
    assert found.wrong is not None
    assert found.wrong.position == EVENTS + 1
    assert f"a checkpoint of {EVENTS + 10} events was signed" in found.wrong.what


@pytest.mark.usefixtures("log")
async def test_the_key_that_somebody_kept(database_url: str) -> None:
    assert (await checked(database_url, pinned=Signer(ORIGIN, SEED).verifier)).wrong is None
    found = await checked(database_url, pinned=Signer(ORIGIN, bytes(32)).verifier)
    assert found.wrong is not None
    assert "is signed by" in found.wrong.what
