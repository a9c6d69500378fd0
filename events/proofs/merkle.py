"""Merkle trees with SHA-256 (RFC 6962 section 2.1, RFC 9162 section 2.1).

A node (level, index) is the root of the complete subtree of the 2**level leaves that begin at leaf index * 2**level.
It never changes once those leaves are there; every proof is made of such nodes.

A proof does not tell which size a root belongs to: a checker takes both together from one signed checkpoint.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256().digest()


class BadProof(Exception):
    """A proof does not prove what it was given for."""


class NoSuchProof(ValueError):
    """A leaf or a size was asked for that the tree does not have."""


# its level and its index
Node = tuple[int, int]
# node(level, index) -> hash; called only for nodes whose leaves are all in the tree asked about
ReadNode = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Run:
    """The hashes of neighbouring nodes of one level, the first of which is at `index`."""

    level: int
    index: int
    hashes: tuple[bytes, ...]


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def parents(hashes: Sequence[bytes]) -> list[bytes]:
    """The nodes one level above an even number of neighbours, the first of which is a left one."""
    return [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=True)]


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree of `size` leaves as far as growing it needs: the nodes of `root_nodes(size)`, in that order.

    Raises ValueError for roots that cannot be those of the size.
    """

    size: int = 0
    roots: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.roots) != self.size.bit_count():
            raise ValueError(f"{len(self.roots)} roots cannot be those of a tree of {self.size} leaves")
        _check_lengths(self.roots)

    @classmethod
    def at(cls, size: int, node: ReadNode) -> Self:
        return cls(size, tuple(node(*place) for place in root_nodes(size)))

    def root(self) -> bytes:
        return _fold(self.roots) if self.roots else EMPTY_ROOT

    def grow(self, leaves: Sequence[bytes]) -> tuple["Frontier", list[Run]]:
        """Append leaf hashes: the tree after them, and all nodes that they completed, themselves first, by level.

        Takes about one hash a leaf, whatever the size. Raises ValueError for a leaf hash that is not 32 bytes.
        """
        _check_lengths(leaves)
        runs: list[Run] = []
        waiting, edge = list(self.roots), list[bytes]()
        level, index, hashes = 0, self.size, list(leaves)
        while hashes:
            runs.append(Run(level, index, tuple(hashes)))
            if index % 2:
                hashes.insert(0, waiting.pop())
            if len(hashes) % 2:
                edge.append(hashes.pop())
            level, index, hashes = level + 1, index // 2, parents(hashes)
        return Frontier(self.size + len(leaves), (*waiting, *reversed(edge))), runs


def root_nodes(size: int) -> list[Node]:
    """The fewest nodes that cover a tree of this size, largest first."""
    return _cover(0, size)


def inclusion_nodes(index: int, size: int) -> list[Node]:
    """What `inclusion_proof` will read; raises NoSuchProof."""
    return [node for start, end in _inclusion_ranges(index, size) for node in _cover(start, end)]


def consistency_nodes(first: int, second: int) -> list[Node]:
    """What `consistency_proof` will read; raises NoSuchProof."""
    return [node for start, end in _consistency_ranges(first, second) for node in _cover(start, end)]


def root_at(size: int, node: ReadNode) -> bytes:
    return Frontier.at(size, node).root()


def inclusion_proof(index: int, size: int, node: ReadNode) -> list[bytes]:
    """PATH of RFC 9162 section 2.1.3.1 for the leaf at `index`, counted from 0; raises NoSuchProof."""
    return [_range_hash(start, end, node) for start, end in _inclusion_ranges(index, size)]


def consistency_proof(first: int, second: int, node: ReadNode) -> list[bytes]:
    """PROOF of RFC 9162 section 2.1.4.1; from no leaves, or to the same size, it is empty. Raises NoSuchProof."""
    return [_range_hash(start, end, node) for start, end in _consistency_ranges(first, second)]


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check by RFC 9162 section 2.1.3.2 that the leaf hash is at `index`, counted from 0; raises BadProof."""
    if not 0 <= index < size:
        raise BadProof(f"a tree of {size} leaves has no leaf {index}")
    _check_hashes(leaf, root, *proof)
    computed = leaf
    for sibling, is_left in _siblings(index, size - 1, proof):
        computed = node_hash(sibling, computed) if is_left else node_hash(computed, sibling)
    if computed != root:
        raise BadProof(f"the proof does not lead from leaf {index} to the root at size {size}")


def check_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Check by RFC 9162 section 2.1.4.2 that the tree of `second` leaves only adds to that of `first`.

    Every tree adds to the empty one, whose root is known, and to itself; their proofs are empty. Raises BadProof.
    """
    if not 0 <= first <= second:
        raise BadProof(f"a tree of {second} leaves cannot have grown from one of {first}")
    _check_hashes(first_root, second_root, *proof)
    _check_if_empty(first, first_root)
    _check_if_empty(second, second_root)
    if 0 < first < second:
        _check_growth(first, second, first_root, second_root, proof)
    elif proof:
        raise BadProof("the proof has too many hashes")
    elif first == second and first_root != second_root:
        raise BadProof(f"two roots at size {first} differ")


def _check_growth(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> None:
    path = (first_root, *proof) if first.bit_count() == 1 else proof
    if not path:
        raise BadProof("the proof has too few hashes")
    level = _level_of_last(first)
    first_computed = second_computed = path[0]
    for sibling, is_left in _siblings((first - 1) >> level, (second - 1) >> level, path[1:]):
        if is_left:
            first_computed = node_hash(sibling, first_computed)
            second_computed = node_hash(sibling, second_computed)
        else:
            second_computed = node_hash(second_computed, sibling)
    if first_computed != first_root:
        raise BadProof(f"the proof does not lead to the root at size {first}")
    if second_computed != second_root:
        raise BadProof(f"the proof does not lead to the root at size {second}")


def _siblings(at: int, last: int, proof: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each hash of a proof on the way from node `at` of a level to the root, and whether it stands to the left.

    `last` is the level's last node. Raises BadProof when the proof ends before the root or goes on behind it.
    """
    for sibling in proof:
        if last == 0:
            raise BadProof("the proof has too many hashes")
        is_left = at % 2 == 1 or at == last
        yield sibling, is_left
        # a last node without a sibling is the same hash on every level up to the one where it has one
        while is_left and at and at % 2 == 0:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    if last:
        raise BadProof("the proof has too few hashes")


def _check_if_empty(size: int, root: bytes) -> None:
    if size == 0 and root != EMPTY_ROOT:
        raise BadProof("the root at size 0 is not that of an empty tree")


def _inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    if not 0 <= index < size:
        raise NoSuchProof(f"a tree of {size} leaves has no leaf {index}")
    ranges: list[tuple[int, int]] = []
    start, end = 0, size
    while end - start > 1:
        middle = _middle(start, end)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def _consistency_ranges(first: int, second: int) -> list[tuple[int, int]]:
    if not 0 <= first <= second:
        raise NoSuchProof(f"a tree of {second} leaves did not grow from one of {first}")
    if first in (0, second):
        return []
    level = _level_of_last(first)
    # the first tree itself, where it is one node of the second, is left out: who checks the proof has its root
    begin = [] if first == 1 << level else [(first - (1 << level), first)]
    return begin + _inclusion_ranges(first - 1, second)[level:]


def _level_of_last(size: int) -> int:
    """The level of the smallest of the nodes that cover a tree of this size: its last."""
    return (size & -size).bit_length() - 1


def _middle(start: int, end: int) -> int:
    """Where RFC 9162 section 2.1.1 splits: after the largest power of two that is smaller than the width."""
    return start + (1 << ((end - start - 1).bit_length() - 1))


def _cover(start: int, end: int) -> list[Node]:
    nodes: list[Node] = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def _range_hash(start: int, end: int, node: ReadNode) -> bytes:
    return _fold([node(*place) for place in _cover(start, end)])


def _fold(roots: Sequence[bytes]) -> bytes:
    *lefts, root = roots
    for left in reversed(lefts):
        root = node_hash(left, root)
    return root


def _check_lengths(hashes: Iterable[bytes]) -> None:
    if any(len(each) != HASH_BYTES for each in hashes):
        raise ValueError(f"a hash is {HASH_BYTES} bytes")


def _check_hashes(*hashes: bytes) -> None:
    try:
        _check_lengths(hashes)
    except ValueError as wrong:
        raise BadProof(str(wrong)) from None
