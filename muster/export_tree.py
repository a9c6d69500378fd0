"""What an export has of the log's tree: who holds it can check it against what was signed, with no database."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from events.proofs import storage
from events.proofs.merkle import HASH_BYTES, Frontier, root_nodes
from events.proofs.tiles import WIDTH
from runtime.database import Connection

HASHES: Final = "hashes.bin"

CHECKPOINT: Final = """
SELECT note FROM log.checkpoints WHERE generation = %s AND size <= %s ORDER BY size DESC LIMIT 1
"""


async def write_tree(
    connection: Connection, folder: Path, first: int, last: int
) -> tuple[Mapping[str, Any], int] | None:
    """Write the leaf hashes of positions `first` to `last`, as far as the tree goes; None for a log without a tree.

    Gives what the manifest says of the tree, and how many hashes there are. The manifest has the roots of the tree
    before `first`, so that a stretch of the log can be checked too, and the newest checkpoint of the log up to `last`.
    """
    tree = await storage.tree_of(connection)
    if tree is None:
        return None
    before, end = first - 1, min(last, tree.size)
    hashes = 0
    with (folder / HASHES).open("wb") as file:
        async with connection.cursor(name="tiles") as cursor:
            await cursor.execute(storage.LEAVES, (before // WIDTH, max(0, end - 1) // WIDTH))
            async for row in cursor:
                start = row["index"] * WIDTH
                content = bytes(row["hashes"])[max(0, before - start) * HASH_BYTES : max(0, end - start) * HASH_BYTES]
                hashes += file.write(content) // HASH_BYTES
    start = Frontier()
    if 0 < before <= tree.size:
        start = Frontier.at(before, await storage.nodes_read(connection, root_nodes(before), before))
    row = await (await connection.execute(CHECKPOINT, (tree.generation, last))).fetchone()
    document = {
        "key": str(tree.verifier),
        "start": {"size": start.size, "roots": _encoded(start.roots)},
        "checkpoint": row["note"] if row is not None else None,
    }
    return document, hashes


def _encoded(hashes: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(each).decode() for each in hashes]
