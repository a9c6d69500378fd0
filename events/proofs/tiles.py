"""A Merkle tree and its entries as immutable files (C2SP tlog-tiles).

A tile is up to 256 neighbouring hashes; those of tile level L are the nodes of level 8 * L of the tree. The nodes
of the levels between are computed.
"""

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from events.proofs.merkle import HASH_BYTES, Node, NoSuchProof, ReadNode, parents

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
LONGEST_ENTRY: Final = 0xFFFF

# six groups of digits hold every index of a tree of fewer than 2**64 leaves
_PATH = re.compile(
    r"tile/(?P<level>entries|[0-9]|[1-5][0-9]|6[0-3])"
    r"/(?P<index>(?!x000/)(?:x[0-9]{3}/){0,5}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5]))?"
)

# tile(level, index, width) -> the tile's hashes, one after another
ReadTile = Callable[[int, int, int], bytes]


class BadTile(Exception):
    """A tile or an entry bundle has not the content that its name promises."""


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    level: int
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        return f"tile/{self.level}/{_index_path(self.index, self.width)}"


@dataclass(frozen=True, slots=True, order=True)
class Bundle:
    """The entries whose leaf hashes are the tile of level 0 with the same index and width."""

    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        return f"tile/entries/{_index_path(self.index, self.width)}"


def parse_path(path: str) -> Tile | Bundle | None:
    """None for what is not exactly the path of a tile or a bundle."""
    if (match := _PATH.fullmatch(path)) is None:
        return None
    index = int(match["index"].replace("x", "").replace("/", ""))
    width = int(match["width"] or WIDTH)
    return Bundle(index, width) if match["level"] == "entries" else Tile(int(match["level"]), index, width)


def tile_width(level: int, index: int, size: int) -> int:
    """How many hashes this tile has in a tree of `size` leaves, 0 to 256; a bundle has those of level 0."""
    return min(max((size >> HEIGHT * level) - index * WIDTH, 0), WIDTH)


def tiles_of(size: int) -> Iterator[Tile]:
    """All tiles of a tree of `size` leaves, by level and index; at most the last of a level is partial."""
    level = 0
    while hashes := size >> HEIGHT * level:
        for index in range(-(-hashes // WIDTH)):
            yield Tile(level, index, tile_width(level, index, size))
        level += 1


def bundles_of(size: int) -> Iterator[Bundle]:
    """All entry bundles of a tree of `size` leaves, by index; at most the last is partial."""
    for index in range(-(-size // WIDTH)):
        yield Bundle(index, tile_width(0, index, size))


def locate(node: Node) -> tuple[int, int, slice]:
    """The level and index of the tile that holds a node, and which of its hashes the node is made of."""
    level, index = node
    tile_level, above = divmod(level, HEIGHT)
    tile_index, offset = divmod(index << above, WIDTH)
    return tile_level, tile_index, slice(offset, offset + (1 << above))


def tiles_for(nodes: Iterable[Node], size: int) -> list[Tile]:
    """The tiles of a tree of `size` leaves that `read_nodes` will read for these nodes, each once."""
    places = {locate(node)[:2] for node in nodes}
    return sorted(Tile(level, index, tile_width(level, index, size)) for level, index in places)


def read_nodes(size: int, tile: ReadTile) -> ReadNode:
    """The nodes of a tree of `size` leaves out of its tiles, of which each is read once.

    The reader raises BadTile for a tile that is not as long as its width says, NoSuchProof for a node that is not in
    the tree.
    """
    seen: dict[tuple[int, int], list[bytes]] = {}

    def node(level: int, index: int) -> bytes:
        tile_level, tile_index, part = locate((level, index))
        width = tile_width(tile_level, tile_index, size)
        if part.stop > width:
            raise NoSuchProof(f"a tree of {size} leaves has no node {index} of level {level}")
        if (hashes := seen.get((tile_level, tile_index))) is None:
            hashes = seen[tile_level, tile_index] = split_tile(tile(tile_level, tile_index, width), width)
        nodes = hashes[part]
        while len(nodes) > 1:
            nodes = parents(nodes)
        return nodes[0]

    return node


def split_tile(content: bytes, width: int) -> list[bytes]:
    """Raises BadTile."""
    if len(content) != width * HASH_BYTES:
        raise BadTile(f"a tile of {width} hashes is {width * HASH_BYTES} bytes, not {len(content)}")
    return [content[start : start + HASH_BYTES] for start in range(0, len(content), HASH_BYTES)]


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """An entry bundle's content: each entry behind its length (uint16, big-endian).

    Raises ValueError for an entry that is longer than its length can say.
    """
    if any(len(entry) > LONGEST_ENTRY for entry in entries):
        raise ValueError(f"an entry of a bundle is at most {LONGEST_ENTRY} bytes")
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def decode_entries(content: bytes, width: int) -> list[bytes]:
    """Raises BadTile if the content is not exactly `width` entries."""
    entries: list[bytes] = []
    end = 0
    for _ in range(width):
        start = end + 2
        end = start + int.from_bytes(content[end:start])
        if end > len(content):
            raise BadTile(f"the bundle ends before its {width} entries do")
        entries.append(content[start:end])
    if end < len(content):
        raise BadTile(f"the bundle goes on behind its {width} entries")
    return entries


def _index_path(index: int, width: int) -> str:
    groups = f"{index:,}".split(",")
    groups[0] = groups[0].zfill(3)
    path = "/".join((*(f"x{group}" for group in groups[:-1]), groups[-1]))
    return path if width == WIDTH else f"{path}.p/{width}"
