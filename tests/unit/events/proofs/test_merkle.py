from typing import Any

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.proofs.merkle import (
    EMPTY_ROOT,
    BadProof,
    Frontier,
    NoSuchProof,
    Run,
    check_consistency,
    check_inclusion,
    consistency_nodes,
    consistency_proof,
    inclusion_nodes,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_at,
    root_nodes,
)
from tests.trees import Tree, consistency_path, entries, inclusion_path, tree_hash

# the leaves, roots and proofs that implementations of Certificate Transparency share
VECTOR = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
VECTOR_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
VECTOR_INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
VECTOR_CONSISTENCY = {
    (1, 1): [],
    (1, 8): VECTOR_INCLUSION[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}

TREE = Tree(1_100)
OTHER = leaf_hash(b"of no tree")

sizes = st.integers(1, TREE.size)


@st.composite
def leaves_in_trees(draw: st.DrawFn) -> tuple[int, int]:
    size = draw(sizes)
    return draw(st.integers(0, size - 1)), size


@st.composite
def growths(draw: st.DrawFn) -> tuple[int, int]:
    second = draw(st.integers(2, TREE.size))
    return draw(st.integers(1, second - 1)), second


def vector_tree() -> tuple[list[bytes], dict[tuple[int, int], bytes]]:
    leaves = [leaf_hash(bytes.fromhex(entry)) for entry in VECTOR]
    _, runs = Frontier().grow(leaves)
    return leaves, {(run.level, run.index + at): found for run in runs for at, found in enumerate(run.hashes)}


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("size", range(9))
def test_the_shared_vectors_have_their_roots(size: int) -> None:
    leaves, nodes = vector_tree()
    assert Frontier().grow(leaves[:size])[0].root().hex() == VECTOR_ROOTS[size]
    assert root_at(size, lambda level, index: nodes[level, index]).hex() == VECTOR_ROOTS[size]


@pytest.mark.parametrize(("place", "proof"), VECTOR_INCLUSION.items())
def test_the_shared_vectors_have_their_inclusion_proofs(place: tuple[int, int], proof: list[str]) -> None:
    leaves, nodes = vector_tree()
    index, size = place
    assert [each.hex() for each in inclusion_proof(index, size, lambda level, index: nodes[level, index])] == proof
    root = bytes.fromhex(VECTOR_ROOTS[size])
    check_inclusion(leaves[index], index, size, [bytes.fromhex(each) for each in proof], root)


@pytest.mark.parametrize(("growth", "proof"), VECTOR_CONSISTENCY.items())
def test_the_shared_vectors_have_their_consistency_proofs(growth: tuple[int, int], proof: list[str]) -> None:
    _, nodes = vector_tree()
    assert [each.hex() for each in consistency_proof(*growth, lambda level, index: nodes[level, index])] == proof
    first_root, second_root = (bytes.fromhex(VECTOR_ROOTS[size]) for size in growth)
    check_consistency(*growth, first_root, second_root, [bytes.fromhex(each) for each in proof])


def test_an_empty_tree_has_the_hash_of_nothing_for_a_root() -> None:
    assert Frontier().root() == root_at(0, TREE.node) == EMPTY_ROOT
    assert root_nodes(0) == []


def test_every_proof_of_every_small_tree_is_that_of_the_rfc_and_holds() -> None:
    for size in range(1, 36):
        leaves = TREE.leaves[:size]
        root = root_at(size, TREE.node)
        assert root == tree_hash(leaves)
        for index in range(size):
            proof = inclusion_proof(index, size, TREE.node)
            assert proof == inclusion_path(index, leaves)
            check_inclusion(leaves[index], index, size, proof, root)
        for first in range(1, size + 1):
            proof = consistency_proof(first, size, TREE.node)
            assert proof == consistency_path(first, leaves)
            check_consistency(first, size, root_at(first, TREE.node), root, proof)


def test_roots_and_proofs_are_those_of_pymerkle() -> None:
    theirs: Any = pymerkle.InmemoryTree()
    theirs.append_entries(entries(150))
    for size in (1, 2, 3, 31, 32, 33, 100, 127, 128, 129, 150):
        assert root_at(size, TREE.node) == theirs.get_root(size)
        for index in range(0, size, 7):
            # theirs begins with the leaf itself, and counts leaves from 1
            leaf, *path = theirs.prove_inclusion(index + 1, size).path
            assert leaf == TREE.leaves[index]
            assert inclusion_proof(index, size, TREE.node) == path
        for first in range(1, size, 7):
            # their proof has another shape: what must agree is which roots are consistent
            theirs.prove_consistency(first, size).verify(root_at(first, TREE.node), root_at(size, TREE.node))
            proof = consistency_proof(first, size, TREE.node)
            check_consistency(first, size, theirs.get_root(first), theirs.get_root(size), proof)


@given(leaves_in_trees())
def test_inclusion_proofs_hold(place: tuple[int, int]) -> None:
    index, size = place
    proof = inclusion_proof(index, size, TREE.node)
    check_inclusion(TREE.leaves[index], index, size, proof, root_at(size, TREE.node))


@given(growths())
def test_consistency_proofs_hold(growth: tuple[int, int]) -> None:
    proof = consistency_proof(*growth, TREE.node)
    check_consistency(*growth, root_at(growth[0], TREE.node), root_at(growth[1], TREE.node), proof)


@given(leaves_in_trees(), st.data())
def test_an_inclusion_proof_with_any_bit_flipped_fails(place: tuple[int, int], data: st.DataObject) -> None:
    index, size = place
    hashes = [TREE.leaves[index], root_at(size, TREE.node), *inclusion_proof(index, size, TREE.node)]
    altered = data.draw(st.integers(0, len(hashes) - 1))
    hashes[altered] = flipped(hashes[altered], data.draw(st.integers(0, 255)))
    leaf, root, *proof = hashes
    with pytest.raises(BadProof):
        check_inclusion(leaf, index, size, proof, root)


@given(growths(), st.data())
def test_a_consistency_proof_with_any_bit_flipped_fails(growth: tuple[int, int], data: st.DataObject) -> None:
    hashes = [root_at(size, TREE.node) for size in growth] + consistency_proof(*growth, TREE.node)
    altered = data.draw(st.integers(0, len(hashes) - 1))
    hashes[altered] = flipped(hashes[altered], data.draw(st.integers(0, 255)))
    first_root, second_root, *proof = hashes
    with pytest.raises(BadProof):
        check_consistency(*growth, first_root, second_root, proof)


def misshapen(proof: list[bytes], data: st.DataObject) -> list[bytes]:
    """The proof with a hash more, a hash less, or two swapped."""
    kinds = ["more"] + ["less"] * (len(proof) > 0) + ["swapped"] * (len(proof) > 1)
    match data.draw(st.sampled_from(kinds)):
        case "more":
            proof.insert(data.draw(st.integers(0, len(proof))), data.draw(st.sampled_from([*proof, OTHER])))
        case "less":
            proof.pop(data.draw(st.integers(0, len(proof) - 1)))
        case _:
            one, other = data.draw(st.lists(st.integers(0, len(proof) - 1), min_size=2, max_size=2, unique=True))
            proof[one], proof[other] = proof[other], proof[one]
    return proof


@given(leaves_in_trees(), st.data())
def test_an_inclusion_proof_of_another_shape_fails(place: tuple[int, int], data: st.DataObject) -> None:
    index, size = place
    proof = misshapen(inclusion_proof(index, size, TREE.node), data)
    with pytest.raises(BadProof):
        check_inclusion(TREE.leaves[index], index, size, proof, root_at(size, TREE.node))


@given(growths(), st.data())
def test_a_consistency_proof_of_another_shape_fails(growth: tuple[int, int], data: st.DataObject) -> None:
    proof = misshapen(consistency_proof(*growth, TREE.node), data)
    with pytest.raises(BadProof):
        check_consistency(*growth, root_at(growth[0], TREE.node), root_at(growth[1], TREE.node), proof)


@given(leaves_in_trees(), st.data())
def test_an_inclusion_proof_fails_at_another_index_or_size(place: tuple[int, int], data: st.DataObject) -> None:
    index, size = place
    proof = inclusion_proof(index, size, TREE.node)
    other_index = data.draw(st.integers(-1, TREE.size).filter(lambda other: other != index))
    with pytest.raises(BadProof):
        check_inclusion(TREE.leaves[index], other_index, size, proof, root_at(size, TREE.node))
    other_size = data.draw(sizes.filter(lambda other: other != size))
    with pytest.raises(BadProof):
        check_inclusion(TREE.leaves[index], index, other_size, proof, root_at(other_size, TREE.node))


@given(growths(), st.data())
def test_a_consistency_proof_fails_for_other_sizes(growth: tuple[int, int], data: st.DataObject) -> None:
    first, second = growth
    first_root, second_root = root_at(first, TREE.node), root_at(second, TREE.node)
    proof = consistency_proof(first, second, TREE.node)
    other = data.draw(sizes.filter(lambda other: other not in growth))
    with pytest.raises(BadProof):
        check_consistency(other, second, root_at(other, TREE.node), second_root, proof)
    with pytest.raises(BadProof):
        check_consistency(first, other, first_root, root_at(other, TREE.node), proof)


def test_a_history_that_was_rewritten_is_not_consistent() -> None:
    rewritten, _ = Frontier().grow([*TREE.leaves[:6], OTHER, *TREE.leaves[7:20]])
    proof = consistency_proof(10, 20, TREE.node)
    with pytest.raises(BadProof, match="root at size 20"):
        check_consistency(10, 20, root_at(10, TREE.node), rewritten.root(), proof)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 8])
def test_a_tree_is_consistent_with_itself_and_with_none(size: int) -> None:
    root = root_at(size, TREE.node)
    assert consistency_proof(size, size, TREE.node) == consistency_proof(0, size, TREE.node) == []
    check_consistency(size, size, root, root, [])
    check_consistency(0, size, EMPTY_ROOT, root, [])


@pytest.mark.parametrize(
    ("first", "second", "first_root", "second_root", "proof", "why"),
    [
        (0, 5, OTHER, OTHER, [], "root at size 0 is not that of an empty tree"),
        (0, 0, OTHER, OTHER, [], "root at size 0 is not that of an empty tree"),
        (0, 5, EMPTY_ROOT, OTHER, [OTHER], "too many hashes"),
        (5, 5, OTHER, OTHER, [OTHER], "too many hashes"),
        (5, 5, OTHER, EMPTY_ROOT, [], "two roots at size 5 differ"),
        (6, 5, OTHER, OTHER, [], "cannot have grown"),
        (-1, 5, OTHER, OTHER, [], "cannot have grown"),
        (3, 5, OTHER, OTHER, [], "too few hashes"),
        (4, 5, OTHER, OTHER, [], "too few hashes"),
        (3, 5, OTHER[:-1], OTHER, [OTHER], "a hash is 32 bytes"),
        (3, 5, OTHER, OTHER, [OTHER, b""], "a hash is 32 bytes"),
    ],
)
def test_what_is_no_consistency_proof_is_refused_with_the_reason(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: list[bytes], why: str
) -> None:
    with pytest.raises(BadProof, match=why):
        check_consistency(first, second, first_root, second_root, proof)


@pytest.mark.parametrize(
    ("leaf", "index", "size", "proof", "why"),
    [
        (OTHER, 0, 0, [], "has no leaf 0"),
        (OTHER, 5, 5, [], "has no leaf 5"),
        (OTHER, -1, 5, [], "has no leaf -1"),
        (OTHER, 0, 2, [], "too few hashes"),
        (OTHER, 0, 1, [OTHER], "too many hashes"),
        (OTHER + b"0", 0, 1, [], "a hash is 32 bytes"),
        (OTHER, 0, 2, [OTHER[:31]], "a hash is 32 bytes"),
    ],
)
def test_what_is_no_inclusion_proof_is_refused_with_the_reason(
    leaf: bytes, index: int, size: int, proof: list[bytes], why: str
) -> None:
    with pytest.raises(BadProof, match=why):
        check_inclusion(leaf, index, size, proof, OTHER)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_no_proof_is_made_of_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(NoSuchProof):
        inclusion_proof(index, size, TREE.node)


@pytest.mark.parametrize(("first", "second"), [(4, 3), (-1, 3)])
def test_no_proof_is_made_of_a_tree_that_shrank(first: int, second: int) -> None:
    with pytest.raises(NoSuchProof):
        consistency_proof(first, second, TREE.node)


@given(leaves_in_trees(), growths())
def test_the_nodes_that_a_proof_reads_are_told_beforehand(place: tuple[int, int], growth: tuple[int, int]) -> None:
    read: list[tuple[int, int]] = []

    def node(level: int, index: int) -> bytes:
        read.append((level, index))
        return TREE.node(level, index)

    inclusion_proof(*place, node)
    consistency_proof(*growth, node)
    root_at(growth[1], node)
    assert read == [*inclusion_nodes(*place), *consistency_nodes(*growth), *root_nodes(growth[1])]


@given(st.lists(st.integers(0, 300), max_size=8))
def test_a_tree_grown_in_batches_is_the_tree_grown_at_once(batches: list[int]) -> None:
    size = min(sum(batches), TREE.size)
    frontier, nodes = Frontier(), dict[tuple[int, int], bytes]()
    for batch in batches:
        restored = Frontier.at(frontier.size, lambda level, index: nodes[level, index])
        assert restored == frontier
        frontier, runs = restored.grow(TREE.leaves[frontier.size : frontier.size + batch])
        for run in runs:
            for index, found in enumerate(run.hashes, run.index):
                assert nodes.setdefault((run.level, index), found) is found, "each node is completed once"
    straight = Tree(size)
    assert frontier == straight.frontier
    assert len(nodes) == 2 * size - size.bit_count()
    assert all(straight.node(*node) == found for node, found in nodes.items())


def test_a_leaf_that_completes_subtrees_tells_them_all() -> None:
    frontier, _ = Frontier().grow(TREE.leaves[:3])
    _, runs = frontier.grow([TREE.leaves[3]])
    pair = node_hash(TREE.leaves[2], TREE.leaves[3])
    assert runs == [Run(0, 3, (TREE.leaves[3],)), Run(1, 1, (pair,)), Run(2, 0, (TREE.node(2, 0),))]


def test_growing_by_nothing_changes_nothing() -> None:
    assert TREE.frontier.grow([]) == (TREE.frontier, [])


@pytest.mark.parametrize(("size", "roots"), [(1, ()), (3, (OTHER,)), (0, (OTHER,)), (-1, (OTHER,)), (1, (b"short",))])
def test_a_frontier_is_not_restored_from_the_wrong_roots(size: int, roots: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match=r"cannot be those|32 bytes"):
        Frontier(size, roots)


def test_an_entry_is_not_taken_for_its_leaf_hash() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Frontier().grow([b"an entry"])
