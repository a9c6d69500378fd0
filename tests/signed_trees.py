"""A tree over a test's log, grown and signed as the integrator does it, without a broker."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row

from events.keks import Kek, Keks
from events.proofs import storage
from events.proofs.integrator import AFTER
from events.proofs.leaves import hash_of
from events.proofs.notes import Checkpoint, sign
from runtime.database import Connection
from runtime.settings import Settings
from tests.tokens import KEK

SEED = bytes(range(32))
ORIGIN = "muster/test"


@asynccontextmanager
async def connected(settings: Settings) -> AsyncGenerator[Connection]:
    url = settings.database_url.get_secret_value()
    async with await Connection.connect(url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


async def grow_and_sign(settings: Settings) -> Checkpoint:
    """Take all of the log into the tree, and sign it."""
    keks = Keks(Kek(KEK))
    async with connected(settings) as connection:
        await storage.begin_tree(connection, ORIGIN, SEED, keks)
        tree = await storage.tree_of(connection)
        assert tree is not None
        edge = await storage.edge_of(connection, tree.size)
        rows = await (await connection.execute(AFTER, (tree.size, None))).fetchall()
        tiles = edge.grow([hash_of(row) for row in rows])
        await storage.save_growth(connection, tree, tree.size, edge.frontier.size, tiles)
        checkpoint = Checkpoint(tree.origin, edge.frontier.size, edge.frontier.root())
        signer = await storage.signer_of(connection, tree, keks)
        await storage.keep(connection, tree, checkpoint, sign(str(checkpoint), [signer]).decode())
        return checkpoint


async def forget_and_sign(owner: psycopg.Connection[dict[str, Any]], settings: Settings) -> Checkpoint:
    """Sign the log as it is now under the same name, as who has the database and every key can."""
    owner.execute("TRUNCATE log.tiles, log.checkpoints")
    owner.execute("UPDATE log.tree SET size = 0")
    return await grow_and_sign(settings)
