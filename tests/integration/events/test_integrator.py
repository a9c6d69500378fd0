"""The integrator: what it signs is the log, grows only, and never goes back on what it signed."""

import asyncio
import base64
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from psycopg.rows import dict_row

from events.keks import Kek, Keks
from events.keyring import Keyring
from events.proofs import storage
from events.proofs.integrator import Integrator
from events.proofs.leaves import hash_of
from events.proofs.merkle import Frontier, check_consistency, consistency_nodes, consistency_proof, root_at, root_nodes
from events.proofs.notes import Checkpoint, Signer, open_note, sign
from events.proofs.tiles import tiles_of
from runtime.database import Connection
from runtime.settings import Settings
from tests.command_line import Operate
from tests.databases import MakeSettings
from tests.histories import History
from tests.tokens import KEK
from tests.waiting import aeventually

pytestmark = pytest.mark.broker

Signed = Callable[[int], Awaitable[Checkpoint]]


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings("muster_command", broker=True)


@asynccontextmanager
async def integrating(settings: Settings) -> AsyncGenerator[Integrator]:
    integrator = Integrator(settings, Keyring(Kek(KEK)))
    running = asyncio.create_task(integrator.run())
    try:
        yield integrator
    finally:
        integrator.stop()
        await running


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Connection]:
    async with await Connection.connect(url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def roots_of(history: History) -> list[bytes]:
    """What the root is after each event, computed from the rows."""
    rows = history.owner.execute("SELECT * FROM log.events ORDER BY position").fetchall()
    frontier, roots = Frontier(), [Frontier().root()]
    for row in rows:
        frontier, _ = frontier.grow([hash_of(row)])
        roots.append(frontier.root())
    return roots


def checkpoints(history: History) -> list[Checkpoint]:
    (tree,) = history.owner.execute(storage.TREE).fetchall()
    found = history.owner.execute("SELECT note FROM log.checkpoints ORDER BY generation, size").fetchall()
    opened = storage.Tree.of(tree)
    return [opened.opened(row["note"]) for row in found]


async def signed(history: History, size: int) -> Checkpoint:
    """The checkpoint of this size, once it is there."""

    async def newest() -> Checkpoint | None:
        found = history.owner.execute("SELECT size FROM log.checkpoints WHERE size = %s", (size,)).fetchall()
        return checkpoints(history)[-1] if found else None

    found = await aeventually(newest, what=f"a checkpoint of {size} events")
    assert found is not None
    return found


async def test_what_it_signs_is_the_log(settings: Settings, history: History) -> None:
    history.create(range(600))
    async with integrating(settings):
        await signed(history, 600)
        history.change(range(5), display_name="Another")
        await signed(history, 605)
        history.delete([7])
        last = await signed(history, 606)
    roots = roots_of(history)
    found = checkpoints(history)
    assert last == found[-1]
    assert [roots[checkpoint.size] for checkpoint in found] == [checkpoint.root for checkpoint in found]
    for before, after in itertools.pairwise(found):
        async with connected(settings.database_url.get_secret_value()) as connection:
            node = await storage.nodes_read(connection, consistency_nodes(before.size, after.size), after.size)
        proof = consistency_proof(before.size, after.size, node)
        check_consistency(before.size, after.size, before.root, after.root, proof)


async def test_tiles_hold_every_hash_at_every_size(settings: Settings, history: History) -> None:
    history.create(range(300))
    async with integrating(settings):
        await signed(history, 300)
        history.create(range(300, 520))
        await signed(history, 520)
    roots = roots_of(history)
    async with connected(settings.database_url.get_secret_value()) as connection:
        for size in (1, 2, 255, 256, 257, 300, 511, 512, 513, 520):
            node = await storage.nodes_read(connection, root_nodes(size), size)
            assert root_at(size, node) == roots[size]
        await storage.tiles_read(connection, list(tiles_of(520)))
    stored = history.owner.execute("SELECT level, index, length(hashes) / 32 AS width FROM log.tiles").fetchall()
    expected = {(tile.level, tile.index, tile.width) for tile in tiles_of(520)}
    assert {(row["level"], row["index"], row["width"]) for row in stored} == expected


async def test_another_goes_on_where_one_stopped(settings: Settings, history: History) -> None:
    for size in (1, 256, 300):
        history.create(range(history.head, size))
        async with integrating(settings):
            await signed(history, size)
    roots = roots_of(history)
    found = checkpoints(history)
    assert {checkpoint.size for checkpoint in found} >= {1, 256, 300}
    assert [checkpoint.root for checkpoint in found] == [roots[checkpoint.size] for checkpoint in found]


async def test_only_one_of_two_signs(settings: Settings, history: History) -> None:
    async with integrating(settings) as one, integrating(settings) as two:
        history.create(range(3))
        await signed(history, 3)
        assert sorted((one.state, two.state)) == ["leading", "standby"]
        leader, other = (one, two) if one.state == "leading" else (two, one)
        leader.stop()
        history.create(range(3, 5))
        await signed(history, 5)
        assert other.state == "leading"


async def test_what_was_signed_is_kept_where_a_restore_does_not_reach(settings: Settings, history: History) -> None:
    history.create(range(4))
    async with integrating(settings):
        await signed(history, 4)
    # a restore of a dump from before the last two events
    lose(history, 2)
    async with integrating(settings) as integrator:
        await aeventually(lambda: is_halted(integrator), what="it refuses")
        assert "a checkpoint of 4 events was signed, and the log has 2" in str(integrator.problem)
        # whatever is written now stands where something else was signed
        history.create(range(10, 13))
        await aeventually(lambda: says(integrator, "are not those that a checkpoint was signed for"), what="it refuses")
    assert not checkpoints(history)


async def test_an_operator_who_cannot_restore_what_was_lost_begins_anew(
    settings: Settings, history: History, operate: Operate
) -> None:
    history.create(range(4))
    async with integrating(settings):
        before = await signed(history, 4)
        lose(history, 2)
        history.create(range(10, 13))
    # at the command line, whose role is the command API's
    environment = {"DATABASE_URL": settings.database_url.get_secret_value()}
    told = operate("proofs", "begin-anew", "--reason", "a disk was lost", "--json", **environment)
    assert told.status == 0, told.stderr
    assert told.result["origin"] == f"{before.origin}/2"
    async with integrating(settings):
        after = await signed(history, 5)
    assert (after.origin, after.root) == (f"{before.origin}/2", roots_of(history)[-1])
    shown = operate("proofs", "show", "--json", **environment).result
    assert shown == {"origin": after.origin, "generation": 2, "size": 5, "key": told.result["key"]}
    assert operate("operations", "--operation", "proofs", "--json").result["operations"][0]["outcome"] == "done"


async def test_a_tile_that_was_altered_is_never_signed(settings: Settings, history: History) -> None:
    history.create(range(5))
    async with integrating(settings):
        await signed(history, 5)
    history.owner.execute("UPDATE log.tiles SET hashes = set_byte(hashes, 40, get_byte(hashes, 40) # 1)")
    history.create(range(5, 6))
    async with integrating(settings) as integrator:
        await aeventually(lambda: is_halted(integrator), what="it refuses")
    assert [found.size for found in checkpoints(history)] == [5]


async def test_a_crash_between_the_topic_and_the_table_loses_nothing(settings: Settings, history: History) -> None:
    history.create(range(5))
    async with integrating(settings):
        await signed(history, 5)
    history.owner.execute("DELETE FROM log.checkpoints")
    async with integrating(settings):
        await signed(history, 5)


async def test_a_checkpoint_of_another_key_is_no_checkpoint(settings: Settings, history: History) -> None:
    history.create(range(2))
    async with integrating(settings):
        found = await signed(history, 2)
    forged = Checkpoint(found.origin, 2, bytes(32))
    note = sign(str(forged), [Signer(found.origin, bytes(32))]).decode()
    history.owner.execute("UPDATE log.checkpoints SET note = %s", (note,))
    async with integrating(settings) as integrator:
        await aeventually(lambda: is_halted(integrator), what="it refuses")
        assert "none that this log signed" in str(integrator.problem)


def test_the_key_is_stored_wrapped(settings: Settings, history: History) -> None:
    async def begin() -> None:
        async with connected(settings.database_url.get_secret_value()) as connection:
            await storage.begin_tree(connection, "muster/test", b"s" * 32, Kek(KEK))
            tree = await storage.tree_of(connection)
            assert tree is not None
            signer = await storage.signer_of(connection, tree, Keks(Kek(KEK)))
            note = sign("muster/test\n", [signer])
            assert open_note(note, [tree.verifier]) == "muster/test\n"

    asyncio.run(begin())
    (row,) = history.owner.execute("SELECT wrapped FROM log.tree").fetchall()
    assert b"s" * 8 not in row["wrapped"]
    assert base64.b64encode(b"s" * 32)[:8] not in row["wrapped"]


async def is_halted(integrator: Integrator) -> bool:
    return integrator.state == "halted"


async def says(integrator: Integrator, words: str) -> bool:
    return words in str(integrator.problem)


def lose(history: History, events: int) -> None:
    """Bring the database to where it was before the last events, as a restored dump would."""
    owner, head = history.owner, history.head - events
    owner.execute(
        "DELETE FROM log.user_keys k USING log.events e WHERE e.user_id = k.user_id AND e.position > %s", (head,)
    )
    owner.execute("DELETE FROM log.events WHERE position > %s", (head,))
    owner.execute("UPDATE log.head SET position = %s", (head,))
    owner.execute("UPDATE log.tree SET size = %s", (head,))
    owner.execute("UPDATE log.tiles SET hashes = substr(hashes, 1, %s)", (32 * head,))
    owner.execute("DELETE FROM log.checkpoints")
