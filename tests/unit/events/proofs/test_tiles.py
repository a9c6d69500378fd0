from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.proofs.merkle import (
    NoSuchProof,
    consistency_nodes,
    consistency_proof,
    inclusion_nodes,
    inclusion_proof,
    root_at,
    root_nodes,
)
from events.proofs.tiles import (
    BadTile,
    Bundle,
    Tile,
    bundles_of,
    decode_entries,
    encode_entries,
    locate,
    parse_path,
    read_nodes,
    tile_width,
    tiles_for,
    tiles_of,
)
from tests.trees import Tree

TREE = Tree(70_000)

sizes = st.integers(1, TREE.size)


@pytest.mark.parametrize(
    ("named", "path"),
    [
        (Tile(0, 1_234_067), "tile/0/x001/x234/067"),
        (Tile(0, 0), "tile/0/000"),
        (Tile(1, 5, 17), "tile/1/005.p/17"),
        (Tile(63, 999, 255), "tile/63/999.p/255"),
        (Tile(2, 1_000, 1), "tile/2/x001/000.p/1"),
        (Tile(0, 999_999_999_999_999_999), "tile/0/x999/x999/x999/x999/x999/999"),
        (Bundle(1_234_067), "tile/entries/x001/x234/067"),
        (Bundle(273, 112), "tile/entries/273.p/112"),
    ],
)
def test_paths_are_those_of_the_specification(named: Tile | Bundle, path: str) -> None:
    assert named.path == path
    assert parse_path(path) == named


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/1234",
        "tile/0/x000/001",
        "tile/0/x001",
        "tile/0/001/002",
        "tile/0/x001/x002",
        "tile/0/x001//002",
        "tile/0/X001/002",
        "tile/00/000",
        "tile/01/000",
        "tile/64/000",
        "tile/100/000",
        "tile/-1/000",
        "tile/0/-01",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/300",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.p/1/",
        "tile/0/000/1",
        "tile/0/000\n",
        "tile/0/000.p/1\n",
        "/tile/0/000",
        "tile/0/\u0660\u0660\u0660",
        "tile/entry/000",
        "tile/entries/0",
        "tile/entries/000.p/256",
        "tile/0/../entries/000",
        "tile/0/" + "x999/" * 6 + "999",
        "tile/0/" + "x999/" * 5_000 + "999",
    ],
)
def test_what_is_not_exactly_a_path_is_none(path: str) -> None:
    assert parse_path(path) is None


@given(st.integers(0, 63), st.integers(0, 2**56 - 1), st.integers(1, 256))
def test_a_path_is_read_back_as_what_it_names(level: int, index: int, width: int) -> None:
    assert parse_path(Tile(level, index, width).path) == Tile(level, index, width)
    assert parse_path(Bundle(index, width).path) == Bundle(index, width)


def test_a_tree_of_70_000_leaves_has_the_tiles_of_the_specification() -> None:
    tiles = list(tiles_of(70_000))
    assert Counter((tile.level, tile.width == 256) for tile in tiles) == {
        (0, True): 273,
        (0, False): 1,
        (1, True): 1,
        (1, False): 1,
        (2, False): 1,
    }
    assert [tile for tile in tiles if tile.width < 256] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert [*bundles_of(70_000)] == [Bundle(tile.index, tile.width) for tile in tiles if tile.level == 0]


@pytest.mark.parametrize(
    ("size", "tiles"),
    [(0, []), (1, [Tile(0, 0, 1)]), (255, [Tile(0, 0, 255)]), (256, [Tile(0, 0), Tile(1, 0, 1)])],
)
def test_small_trees_have_no_empty_tiles(size: int, tiles: list[Tile]) -> None:
    assert list(tiles_of(size)) == tiles


@given(st.integers(0, 5_000), st.integers(0, 3), st.integers(0, 25))
def test_a_tree_has_just_the_tiles_that_have_a_width_in_it(size: int, level: int, index: int) -> None:
    widths = {(tile.level, tile.index): tile.width for tile in tiles_of(size)}
    assert widths.get((level, index), 0) == tile_width(level, index, size)


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ((0, 0), (0, 0, slice(0, 1))),
        ((0, 300), (0, 1, slice(44, 45))),
        ((7, 1), (0, 0, slice(128, 256))),
        ((7, 2), (0, 1, slice(0, 128))),
        ((8, 1), (1, 0, slice(1, 2))),
        ((9, 3), (1, 0, slice(6, 8))),
        ((16, 257), (2, 1, slice(1, 2))),
    ],
)
def test_a_node_is_found_in_its_tile(node: tuple[int, int], place: tuple[int, int, slice]) -> None:
    assert locate(node) == place


@given(st.data())
def test_a_node_out_of_tiles_is_the_node(data: st.DataObject) -> None:
    size = data.draw(sizes)
    level = data.draw(st.integers(0, size.bit_length() - 1))
    index = data.draw(st.integers(0, (size >> level) - 1))
    assert read_nodes(size, TREE.tile)(level, index) == TREE.node(level, index)


@given(st.data())
def test_proofs_out_of_tiles_are_those_out_of_nodes(data: st.DataObject) -> None:
    size = data.draw(sizes)
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    tiled = read_nodes(size, TREE.tile)
    assert root_at(size, tiled) == root_at(size, TREE.node)
    assert inclusion_proof(index, size, tiled) == inclusion_proof(index, size, TREE.node)
    assert consistency_proof(first, size, tiled) == consistency_proof(first, size, TREE.node)


@given(st.data())
def test_the_tiles_that_a_proof_reads_are_told_beforehand_and_read_once(data: st.DataObject) -> None:
    size = data.draw(sizes)
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    read: list[Tile] = []

    def tile(level: int, index: int, width: int) -> bytes:
        read.append(Tile(level, index, width))
        return TREE.tile(level, index, width)

    tiled = read_nodes(size, tile)
    root_at(size, tiled)
    inclusion_proof(index, size, tiled)
    consistency_proof(first, size, tiled)
    needed = [*root_nodes(size), *inclusion_nodes(index, size), *consistency_nodes(first, size)]
    assert sorted(read) == tiles_for(needed, size)


def test_a_tile_of_another_length_is_refused() -> None:
    node = read_nodes(300, lambda level, index, width: TREE.tile(level, index, width)[:-1])
    with pytest.raises(BadTile, match="a tile of 44 hashes is 1408 bytes, not 1407"):
        node(0, 299)


@pytest.mark.parametrize("node", [(0, 300), (1, 150), (8, 1), (3, 37), (0, 600)])
def test_a_node_that_the_tree_does_not_have_is_not_read(node: tuple[int, int]) -> None:
    with pytest.raises(NoSuchProof):
        read_nodes(300, TREE.tile)(*node)


def test_a_bundle_has_each_entry_behind_its_length() -> None:
    assert encode_entries([b"ada", b"", b"x" * 258]) == b"\x00\x03ada" + b"\x00\x00" + b"\x01\x02" + b"x" * 258


@given(st.lists(st.binary(max_size=40), max_size=256))
def test_a_bundle_is_read_back_as_its_entries(entries: list[bytes]) -> None:
    assert decode_entries(encode_entries(entries), len(entries)) == entries


def test_an_entry_fills_its_length_and_no_more() -> None:
    longest = b"x" * 65_535
    assert decode_entries(encode_entries([longest]), 1) == [longest]
    with pytest.raises(ValueError, match="at most 65535 bytes"):
        encode_entries([longest + b"x"])


@pytest.mark.parametrize(
    ("content", "width"),
    [(b"", 1), (b"\x00", 1), (b"\x00\x03ad", 1), (b"\x00\x01a\x00", 1), (b"\x00\x01a\x00", 2), (b"\x00\x01a", 0)],
)
def test_a_bundle_that_is_not_exactly_its_entries_is_refused(content: bytes, width: int) -> None:
    with pytest.raises(BadTile):
        decode_entries(content, width)
