"""Merkle trees with all their nodes at hand, and the definitions of RFC 9162 section 2.1 as they stand there."""

from events.proofs.merkle import EMPTY_ROOT, Frontier, leaf_hash, node_hash


def entries(size: int) -> list[bytes]:
    return [str(index).encode() for index in range(size)]


class Tree:
    def __init__(self, size: int) -> None:
        self.size = size
        self.leaves = [leaf_hash(entry) for entry in entries(size)]
        self.frontier, runs = Frontier().grow(self.leaves)
        self._levels = [run.hashes for run in runs]

    def node(self, level: int, index: int) -> bytes:
        return self._levels[level][index]

    def tile(self, level: int, index: int, width: int) -> bytes:
        hashes = self._levels[8 * level][256 * index : 256 * index + width]
        assert len(hashes) == width
        return b"".join(hashes)


def tree_hash(leaves: list[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else EMPTY_ROOT
    middle = _middle(leaves)
    return node_hash(tree_hash(leaves[:middle]), tree_hash(leaves[middle:]))


def inclusion_path(index: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    middle = _middle(leaves)
    if index < middle:
        return [*inclusion_path(index, leaves[:middle]), tree_hash(leaves[middle:])]
    return [*inclusion_path(index - middle, leaves[middle:]), tree_hash(leaves[:middle])]


def consistency_path(first: int, leaves: list[bytes], *, known: bool = True) -> list[bytes]:
    if first == len(leaves):
        return [] if known else [tree_hash(leaves)]
    middle = _middle(leaves)
    if first <= middle:
        return [*consistency_path(first, leaves[:middle], known=known), tree_hash(leaves[middle:])]
    return [*consistency_path(first - middle, leaves[middle:], known=False), tree_hash(leaves[:middle])]


def _middle(leaves: list[bytes]) -> int:
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    return middle
