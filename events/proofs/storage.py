"""The log's tree in Postgres: how far it is, its tiles, and the checkpoints that were signed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from events.keks import Keks, KeyWrapper
from events.proofs.merkle import HASH_BYTES, Frontier, ReadNode, Run, root_nodes
from events.proofs.notes import Checkpoint, Signer, Verifier, open_note
from events.proofs.tiles import HEIGHT, WIDTH, BadTile, ReadTile, Tile, read_nodes, tile_width, tiles_for
from runtime.database import Connection, Row

# of a tree of 2**63 leaves
LEVELS: Final = 8

TREE: Final = "SELECT generation, origin, size, public_key FROM log.tree"
SECRET: Final = "SELECT wrapped, kek_id FROM log.tree"  # noqa: S105 - a query
BEGIN: Final = """
INSERT INTO log.tree (generation, origin, public_key, wrapped, kek_id) VALUES (1, %s, %s, %s, %s)
ON CONFLICT (singleton) DO NOTHING
"""
BEGIN_ANEW: Final = r"""
UPDATE log.tree SET generation = generation + 1, size = 0,
    origin = CASE WHEN generation = 1 THEN origin ELSE regexp_replace(origin, '/\d+$', '') END || '/' || generation + 1
RETURNING generation, origin, size, public_key
"""
DROP_TILES: Final = "DELETE FROM log.tiles"
TILES: Final = """
SELECT t.level, t.index, t.hashes
FROM unnest(%s::smallint[], %s::bigint[]) AS wanted (level, index) JOIN log.tiles t USING (level, index)
"""
# the tiles of leaf hashes from one index to another
LEAVES: Final = "SELECT index, hashes FROM log.tiles WHERE level = 0 AND index BETWEEN %s AND %s ORDER BY index"
PUT: Final = """
INSERT INTO log.tiles AS t (level, index, hashes)
SELECT * FROM unnest(%s::smallint[], %s::bigint[], %s::bytea[])
ON CONFLICT (level, index) DO UPDATE SET hashes = excluded.hashes
"""
# a process that lost the lead without noticing does not find the size that it left
GROW: Final = "UPDATE log.tree SET size = %s WHERE size = %s AND generation = %s RETURNING size"
KEEP: Final = """
INSERT INTO log.checkpoints (generation, size, root, note) VALUES (%s, %s, %s, %s)
ON CONFLICT (generation, size) DO NOTHING
"""
NEWEST: Final = "SELECT note FROM log.checkpoints WHERE generation = %s ORDER BY size DESC LIMIT 1"


class TreeMoved(Exception):
    """Another process has grown the tree meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What the tree is known by, and up to which position it goes. `verifier` checks what it has signed."""

    generation: int
    origin: str
    size: int
    verifier: Verifier

    @classmethod
    def of(cls, row: Row) -> Self:
        """Of a row of TREE."""
        verifier = Verifier(row["origin"], bytes(row["public_key"]))
        return cls(generation=row["generation"], origin=row["origin"], size=row["size"], verifier=verifier)

    def opened(self, note: str) -> Checkpoint:
        """The checkpoint that a note signs. Raises BadNote and BadCheckpoint."""
        return Checkpoint.parse(open_note(note.encode(), [self.verifier]))


@dataclass(slots=True, kw_only=True)
class Edge:
    """A tree where it grows: `partial` has the hashes of each level's last tile, if that is not full yet."""

    frontier: Frontier
    partial: dict[int, bytes]

    def grow(self, leaves: Sequence[bytes]) -> dict[tuple[int, int], bytes]:
        """Append leaf hashes; gives the tiles that changed, by level and index."""
        changed: dict[tuple[int, int], bytes] = {}
        self.frontier, runs = self.frontier.grow(leaves)
        for run in runs:
            if run.level % HEIGHT == 0:
                changed |= self._filled(run)
        return changed

    def _filled(self, run: Run) -> dict[tuple[int, int], bytes]:
        level, filled = run.level // HEIGHT, dict[tuple[int, int], bytes]()
        content = self.partial.pop(level, b"") + b"".join(run.hashes)
        index, full = run.index // WIDTH, WIDTH * HASH_BYTES
        for start in range(0, len(content), full):
            filled[level, index + start // full] = content[start : start + full]
        if rest := len(content) % full:
            self.partial[level] = content[-rest:]
        return filled


async def tree_of(connection: Connection) -> Tree | None:
    row = await (await connection.execute(TREE)).fetchone()
    return Tree.of(row) if row is not None else None


async def signer_of(connection: Connection, tree: Tree, keks: Keks) -> Signer:
    """Raises WrongKey."""
    row = await (await connection.execute(SECRET)).fetchone()
    assert row is not None  # noqa: S101 - the tree is there
    return Signer(tree.origin, keks.unwrap(bytes(row["wrapped"]), row["kek_id"]))


async def begin_tree(connection: Connection, origin: str, seed: bytes, kek: KeyWrapper) -> None:
    """Begin a tree that has no leaf yet, unless there is one."""
    public = Signer(origin, seed).verifier.key
    await connection.execute(BEGIN, (origin, public, kek.wrap(seed), kek.id))


async def begin_anew(connection: Connection) -> Tree | None:
    """Give the log another name and an empty tree; None when it has none. What was signed before stays as it was.

    Within the caller's transaction. An integrator that is at work notices, and grows the new one.
    """
    row = await (await connection.execute(BEGIN_ANEW)).fetchone()
    if row is None:
        return None
    await connection.execute(DROP_TILES)
    return Tree.of(row)


async def edge_of(connection: Connection, size: int) -> Edge:
    """Raises BadTile when the tiles that are stored do not make a tree of this size."""
    last = [Tile(level, (size >> HEIGHT * level) // WIDTH) for level in range(LEVELS)]
    partial = [found for tile in last if (found := _cut(tile, size)).width]
    read = await tiles_read(connection, [*tiles_for(root_nodes(size), size), *partial])
    return Edge(
        frontier=Frontier.at(size, read_nodes(size, read)),
        partial={tile.level: read(tile.level, tile.index, tile.width) for tile in partial},
    )


async def nodes_read(connection: Connection, nodes: Iterable[tuple[int, int]], size: int) -> ReadNode:
    """Reads these nodes of the tree as it was at a size; what is wrong with them is raised then: BadTile."""
    return read_nodes(size, await tiles_read(connection, tiles_for(nodes, size)))


async def tiles_read(connection: Connection, tiles: Sequence[Tile]) -> ReadTile:
    """Reads these tiles, each up to its width; raises BadTile for one that is not there, or shorter."""
    cursor = await connection.execute(TILES, places_of(tiles))
    return reader_of(await cursor.fetchall())


def places_of(tiles: Sequence[Tile]) -> tuple[list[int], list[int]]:
    """What TILES asks for."""
    return [tile.level for tile in tiles], [tile.index for tile in tiles]


def reader_of(rows: Iterable[Mapping[str, Any]]) -> ReadTile:
    """Of rows of TILES."""
    found = {(row["level"], row["index"]): bytes(row["hashes"]) for row in rows}

    def tile(level: int, index: int, width: int) -> bytes:
        content = found.get((level, index), b"")[: width * HASH_BYTES]
        if len(content) < width * HASH_BYTES:
            raise BadTile(f"tile {level}/{index} holds {len(content) // HASH_BYTES} hashes where {width} are due")
        return content

    return tile


async def save_growth(
    connection: Connection, tree: Tree, before: int, after: int, tiles: Mapping[tuple[int, int], bytes]
) -> None:
    """The tiles and the size, or neither. Raises TreeMoved."""
    async with connection.transaction():
        cursor = await connection.execute(GROW, (after, before, tree.generation))
        if await cursor.fetchone() is None:
            raise TreeMoved(f"the tree has not the {before} leaves any more that this process gave it")
        places = list(tiles)
        levels, indexes = [level for level, _ in places], [index for _, index in places]
        await connection.execute(PUT, (levels, indexes, list(tiles.values())))


async def keep(connection: Connection, tree: Tree, checkpoint: Checkpoint, note: str) -> None:
    await connection.execute(KEEP, (tree.generation, checkpoint.size, checkpoint.root, note))


async def newest_note(connection: Connection, tree: Tree) -> str | None:
    row = await (await connection.execute(NEWEST, (tree.generation,))).fetchone()
    return row["note"] if row is not None else None


def _cut(tile: Tile, size: int) -> Tile:
    return Tile(tile.level, tile.index, tile_width(tile.level, tile.index, size))
