"""The tree over the log as auditors ask for it: what was signed, and proofs that lead there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

from events.proofs.leaves import STORED, leaf_of, stored_document
from events.proofs.merkle import (
    Frontier,
    Node,
    ReadNode,
    consistency_nodes,
    consistency_proof,
    inclusion_nodes,
    root_nodes,
)
from events.proofs.merkle import inclusion_proof as path_of
from events.proofs.notes import Checkpoint
from events.proofs.storage import TILES, Tree, places_of, reader_of
from events.proofs.tiles import WIDTH, Bundle, Tile, encode_entries, read_nodes, tiles_for
from events.recording import Position
from runtime.database import Session

SIGNED: Final = """
SELECT t.generation, t.origin, t.size, t.public_key, c.note, c.signed_at
FROM log.tree t
LEFT JOIN LATERAL (
    SELECT k.note, k.signed_at FROM log.checkpoints k WHERE k.generation = t.generation ORDER BY k.size DESC LIMIT 1
) c ON true
"""
ENTRIES: Final[LiteralString] = f"""
SELECT {STORED} FROM log.events WHERE position > %s AND position <= %s ORDER BY position
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """The newest checkpoint, as it was signed and as it says."""

    tree: Tree
    note: str
    signed_at: datetime
    checkpoint: Checkpoint

    @property
    def size(self) -> int:
        return self.checkpoint.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """A leaf's hash and the path from it to the root of the tree of `size` leaves."""

    leaf_hash: bytes
    path: Sequence[bytes]
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """The roots of two sizes, and the proof that the second tree only adds to the first."""

    first_root: bytes
    second_root: bytes
    proof: Sequence[bytes]


class Proofs:
    """Reads the tree. Raises Unavailable, and BadTile when what is stored of it was altered."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def tree(self) -> Tree | None:
        """What is known of the tree; None before the first event was taken into it."""
        rows = await self._session.fetch(SIGNED)
        return Tree.of(rows[0]) if rows else None

    async def signed(self) -> Signed | None:
        """None before the first checkpoint."""
        rows = await self._session.fetch(SIGNED)
        if not rows or rows[0]["note"] is None:
            return None
        tree, note = Tree.of(rows[0]), rows[0]["note"]
        return Signed(tree=tree, note=note, signed_at=rows[0]["signed_at"], checkpoint=tree.opened(note))

    async def inclusion(self, position: Position, size: int) -> Inclusion:
        """Of an event in the tree of a size that is not larger than the newest checkpoint's."""
        index = position - 1
        node = await self._nodes([(0, index), *inclusion_nodes(index, size), *root_nodes(size)], size)
        return Inclusion(leaf_hash=node(0, index), path=path_of(index, size, node), root=Frontier.at(size, node).root())

    async def consistency(self, first: int, second: int) -> Consistency:
        """Of two sizes, the second not smaller than the first nor larger than the newest checkpoint's."""
        nodes = [*root_nodes(first), *root_nodes(second), *consistency_nodes(first, second)]
        node = await self._nodes(nodes, second)
        return Consistency(
            first_root=Frontier.at(first, node).root(),
            second_root=Frontier.at(second, node).root(),
            proof=consistency_proof(first, second, node),
        )

    async def tile(self, tile: Tile) -> bytes:
        """Its hashes, one after another."""
        rows = await self._session.fetch(TILES, places_of([tile]))
        return reader_of(rows)(tile.level, tile.index, tile.width)

    async def entries(self, bundle: Bundle) -> bytes:
        """The leaves of a tile of level 0 (C2SP tlog-tiles): events as they are stored, what is personal sealed."""
        first = bundle.index * WIDTH
        rows = await self._session.fetch(ENTRIES, (first, first + bundle.width))
        return encode_entries([leaf_of(stored_document(row)) for row in rows])

    async def _nodes(self, nodes: Iterable[Node], size: int) -> ReadNode:
        rows = await self._session.fetch(TILES, places_of(tiles_for(nodes, size)))
        return read_nodes(size, reader_of(rows))
