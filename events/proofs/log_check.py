"""The log in Postgres, checked against its tree and what was signed of it, as both are at one moment."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from events.proofs import storage
from events.proofs.checking import LARGEST, LogCheck, Wrong
from events.proofs.leaves import STORED, stored_document
from events.proofs.merkle import HASH_BYTES, Frontier
from events.proofs.notes import BadCheckpoint, BadNote, Checkpoint, Verifier
from events.proofs.storage import Edge, Tree
from events.proofs.tiles import WIDTH, split_tile
from events.reader import head_position
from runtime.database import Connection, Row

FETCHED_AT_ONCE: Final = 2_000
TILES_AT_ONCE: Final = 64

EVENTS: Final = f"SELECT {STORED} FROM log.events ORDER BY position"  # noqa: S608 - a constant
CHECKPOINTS: Final = "SELECT size, root, note FROM log.checkpoints WHERE generation = %s ORDER BY size"
BELOW_ROOT: Final = "SELECT level, index, hashes FROM log.tiles WHERE level > 0"


@dataclass(slots=True, kw_only=True)
class Checked:
    """What was compared: `proved` is the last position that a checkpoint vouches for, `wrong` what is wrong first."""

    events: int = 0
    tree: int = 0
    checkpoints: int = 0
    proved: int = 0
    wrong: Wrong | None = None


async def check_log(
    connection: Connection,
    *,
    pinned: Verifier | None = None,
    known: Sequence[Checkpoint] = (),
    advanced: Callable[[int], None] = lambda _: None,
) -> Checked:
    """Check all of the log within the caller's transaction, which sees one moment.

    `pinned` is the key that the log must have, `known` are checkpoints that somebody kept.
    """
    checked = Checked()
    tree = await storage.tree_of(connection)
    try:
        roots = await _roots(connection, tree, pinned, known, checked)
        await _check_events(connection, tree, roots, checked, advanced)
        if tree is not None:
            await _check_tiles(connection, tree)
    except _Found as found:
        checked.wrong = found.wrong
    return checked


class _Found(Exception):
    def __init__(self, position: int, what: str) -> None:
        super().__init__(what)
        self.wrong = Wrong(position=position, what=what)


async def _roots(
    connection: Connection,
    tree: Tree | None,
    pinned: Verifier | None,
    known: Sequence[Checkpoint],
    checked: Checked,
) -> Mapping[int, bytes]:
    """The root at each size that was signed."""
    roots = dict[int, bytes]()
    if tree is None:
        if known or pinned is not None:
            raise _Found(1, "the log has no tree, and a checkpoint was signed")
        return roots
    checked.tree = tree.size
    if pinned is not None and pinned != tree.verifier:
        raise _Found(1, f"the log is signed by {tree.verifier}, not by {pinned}")
    async with connection.cursor(name="checkpoints") as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        await cursor.execute(CHECKPOINTS, (tree.generation,))
        async for row in cursor:
            roots[row["size"]] = _root(tree, row)
            checked.checkpoints += 1
    for checkpoint in known:
        if checkpoint.origin != tree.origin:
            raise _Found(1, f"the checkpoint is one of {checkpoint.origin!r}, and this log is {tree.origin!r}")
        if roots.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
            raise _Found(1, f"two checkpoints of {checkpoint.size} events were signed: the history was forked")
    return roots


def _root(tree: Tree, row: Row) -> bytes:
    try:
        checkpoint = tree.opened(row["note"])
    except (BadNote, BadCheckpoint) as error:
        raise _Found(row["size"], f"the checkpoint of {row['size']} events is not what was signed: {error}") from None
    if (checkpoint.origin, checkpoint.size, checkpoint.root) != (tree.origin, row["size"], bytes(row["root"])):
        raise _Found(row["size"], f"the checkpoint of {row['size']} events stands in the place of another")
    return checkpoint.root


async def _check_events(
    connection: Connection,
    tree: Tree | None,
    roots: Mapping[int, bytes],
    checked: Checked,
    advanced: Callable[[int], None],
) -> None:
    hashes = _Hashes(connection, tree.size if tree is not None else 0)
    check = LogCheck(roots, hash_at=hashes.at)
    wrong: Wrong | None = None
    async with connection.cursor(name="events") as cursor:
        await cursor.execute(EVENTS)
        while wrong is None and (rows := await cursor.fetchmany(FETCHED_AT_ONCE)):
            await hashes.load(check.size + 1, check.size + len(rows))
            wrong = check.take(stored_document(row) for row in rows)
            checked.events, checked.proved = check.size, check.proved
            advanced(check.size)
    wrong = wrong or check.end()
    if wrong is not None:
        raise _Found(wrong.position, wrong.what)
    if (head := await head_position(connection)) != check.size:
        raise _Found(min(head, check.size) + 1, f"the log's head says that it ends at {head}, and it has {check.size}")
    if tree is not None and tree.size > check.size:
        raise _Found(check.size + 1, f"the log ends before this position, and its tree has {tree.size} events")


class _Hashes:
    """The leaf hashes that the tree's tiles hold, of the positions that were loaded."""

    def __init__(self, connection: Connection, size: int) -> None:
        self._connection = connection
        self._size = size
        self._tiles = dict[int, bytes]()

    async def load(self, first: int, last: int) -> None:
        cursor = await self._connection.execute(storage.LEAVES, ((first - 1) // WIDTH, (last - 1) // WIDTH))
        self._tiles = {row["index"]: bytes(row["hashes"]) for row in await cursor.fetchall()}

    def at(self, position: int) -> bytes | None:
        """Empty for a hash that the tree should have and has not."""
        if position > self._size:
            return None
        index, offset = divmod(position - 1, WIDTH)
        return self._tiles.get(index, b"")[offset * HASH_BYTES : (offset + 1) * HASH_BYTES]


async def _check_tiles(connection: Connection, tree: Tree) -> None:
    """Check that the upper tiles are made of the lowest, whose hashes were compared with the events."""
    cursor = await connection.execute(BELOW_ROOT)
    upper = {(row["level"], row["index"]): bytes(row["hashes"]) for row in await cursor.fetchall()}
    edge, made = Edge(frontier=Frontier(), partial={}), dict[tuple[int, int], bytes]()
    async with connection.cursor(name="tiles") as tiles:
        tiles.itersize = TILES_AT_ONCE
        # more of them than the tree has leaves for are found too
        await tiles.execute(storage.LEAVES, (0, LARGEST))
        async for row in tiles:
            content = bytes(row["hashes"])
            made |= {
                place: hashes
                for place, hashes in edge.grow(split_tile(content, len(content) // HASH_BYTES)).items()
                if place[0]
            }
    if edge.frontier.size != tree.size:
        raise _Found(min(edge.frontier.size, tree.size) + 1, f"the tree's tiles are of {edge.frontier.size} events")
    for level, index in _differing(upper, made):
        first = index * WIDTH ** (level + 1) + 1
        raise _Found(first, f"tile {level}/{index} of the tree is not made of the hashes below it")


def _differing(one: Mapping[tuple[int, int], Any], other: Mapping[tuple[int, int], Any]) -> Iterator[tuple[int, int]]:
    return (place for place in sorted(one.keys() | other.keys()) if one.get(place) != other.get(place))
