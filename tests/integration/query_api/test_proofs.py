"""What auditors are given to check: every proof is checked here as they would, from what was answered alone."""

import base64
from typing import Any

import httpx
import orjson
import pytest

from events.proofs.leaves import leaf_of, stored_document
from events.proofs.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    check_consistency,
    check_inclusion,
    inclusion_proof,
    leaf_hash,
    root_at,
)
from events.proofs.notes import Checkpoint, Verifier, open_note
from events.proofs.tiles import bundles_of, decode_entries, read_nodes, tiles_of
from runtime.settings import Settings
from tests.databases import MakeSettings
from tests.histories import History
from tests.signed_trees import grow_and_sign

EVENTS = 600


@pytest.fixture
def signing(make_settings: MakeSettings) -> Settings:
    return make_settings("muster_command")


async def checkpoint_of(queries: httpx.AsyncClient) -> Checkpoint:
    key = (await queries.get("/proofs/key")).text.strip()
    answer = await queries.get("/proofs/checkpoint")
    checkpoint = Checkpoint.parse(open_note(answer.content, [Verifier.parse(key)]))
    assert answer.headers["Event-Position"] == str(checkpoint.size)
    return checkpoint


def hashes(body: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(each) for each in body["proof"]]


def rows_of(history: History) -> list[dict[str, Any]]:
    return history.owner.execute("SELECT * FROM log.events ORDER BY position").fetchall()


async def test_every_event_is_proved_to_be_in_the_checkpoint(
    queries: httpx.AsyncClient, history: History, signing: Settings
) -> None:
    history.create(range(EVENTS))
    assert await grow_and_sign(signing) == await checkpoint_of(queries)
    checkpoint = await checkpoint_of(queries)
    rows = rows_of(history)
    for position in (1, 2, 255, 256, 257, 511, 512, 513, EVENTS):
        body = (await queries.get(f"/proofs/inclusion/{position}")).raise_for_status().json()
        leaf = leaf_hash(leaf_of(stored_document(rows[position - 1])))
        assert base64.b64decode(body["leaf_hash"]) == leaf
        assert (body["leaf_index"], body["size"]) == (position - 1, EVENTS)
        check_inclusion(leaf, position - 1, EVENTS, hashes(body), checkpoint.root)
    earlier = (await queries.get("/proofs/inclusion/3", params={"size": 300})).json()
    check_inclusion(base64.b64decode(earlier["leaf_hash"]), 2, 300, hashes(earlier), base64.b64decode(earlier["root"]))


async def test_the_log_is_proved_to_have_only_grown(
    queries: httpx.AsyncClient, history: History, signing: Settings
) -> None:
    known = Checkpoint("muster/test", 0, EMPTY_ROOT)
    for size in (1, 255, 256, 300, 520):
        history.create(range(history.head, size))
        await grow_and_sign(signing)
        newest = await checkpoint_of(queries)
        body = (await queries.get("/proofs/consistency", params={"from": known.size})).raise_for_status().json()
        assert body["to"] == newest.size == size
        assert base64.b64decode(body["from_root"]) == known.root
        check_consistency(known.size, size, known.root, newest.root, hashes(body))
        known = newest
    between = (await queries.get("/proofs/consistency", params={"from": 255, "to": 300})).json()
    roots = (base64.b64decode(between["from_root"]), base64.b64decode(between["to_root"]))
    check_consistency(255, 300, *roots, hashes(between))


async def test_the_tiles_and_entries_make_the_same_tree(
    queries: httpx.AsyncClient, history: History, signing: Settings
) -> None:
    history.create(range(EVENTS))
    checkpoint = await grow_and_sign(signing)
    tiles: dict[tuple[int, int], bytes] = {}
    for tile in tiles_of(EVENTS):
        answer = (await queries.get(f"/proofs/{tile.path}")).raise_for_status()
        assert "immutable" in answer.headers["Cache-Control"]
        tiles[tile.level, tile.index] = answer.content
    node = read_nodes(EVENTS, lambda level, index, _: tiles[level, index])
    assert root_at(EVENTS, node) == checkpoint.root
    entries: list[bytes] = []
    for bundle in bundles_of(EVENTS):
        answer = (await queries.get(f"/proofs/{bundle.path}")).raise_for_status()
        entries += decode_entries(answer.content, bundle.width)
    assert [orjson.loads(entry)["position"] for entry in entries] == list(range(1, EVENTS + 1))
    assert [node(0, index) for index in range(EVENTS)] == [leaf_hash(entry) for entry in entries]
    assert inclusion_proof(5, EVENTS, node)


async def test_what_is_published_tells_nothing_of_a_person(
    queries: httpx.AsyncClient, history: History, signing: Settings
) -> None:
    history.create([1], email="wilhelmina@example.com", display_name="Wilhelmina", attributes={"team": "Anemone"})
    await grow_and_sign(signing)
    told = b""
    for path in ("checkpoint", "inclusion/1", "consistency?from=0", "tile/0/000.p/1", "tile/entries/000.p/1"):
        told += (await queries.get(f"/proofs/{path}")).raise_for_status().content
    for value in (b"wilhelmina", b"Wilhelmina", b"Anemone"):
        assert value not in told
        assert base64.b64encode(value)[:-4] not in told


async def test_a_tile_that_grew_is_still_there_as_it_was(
    queries: httpx.AsyncClient, history: History, signing: Settings
) -> None:
    history.create(range(3))
    await grow_and_sign(signing)
    before = (await queries.get("/proofs/tile/0/000.p/3")).content
    history.create(range(3, 300))
    await grow_and_sign(signing)
    assert (await queries.get("/proofs/tile/0/000.p/3")).content == before
    assert (await queries.get("/proofs/tile/0/000")).content[: 3 * HASH_BYTES] == before


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/001",
        "tile/0/000",
        "tile/0/000.p/4",
        "tile/0/0",
        "tile/0/000.p/256",
        "tile/9/000",
        "tile/x/000",
        "tile/entries/000",
        "tile/entries/000.p/4",
        "tile/entries/..",
        "tile/0/000.p/0",
        "tile/0/x000/000",
    ],
)
async def test_there_is_no_such_tile(
    queries: httpx.AsyncClient, history: History, signing: Settings, path: str
) -> None:
    history.create(range(3))
    await grow_and_sign(signing)
    answer = await queries.get(f"/proofs/{path}")
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["code"] in {"no_such_tile", "not_found"}


@pytest.mark.parametrize(
    "path", ["inclusion/4", "inclusion/2?size=4", "inclusion/3?size=2", "consistency?from=4", "consistency?from=1&to=4"]
)
async def test_what_is_not_signed_yet_is_not_proved(
    queries: httpx.AsyncClient, history: History, signing: Settings, path: str
) -> None:
    history.create(range(3))
    await grow_and_sign(signing)
    history.create([3])
    answer = await queries.get(f"/proofs/{path}")
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["code"] == "not_signed"


@pytest.mark.parametrize("path", ["key", "checkpoint", "inclusion/1", "consistency?from=0", "tile/0/000.p/1"])
async def test_before_the_first_event(queries: httpx.AsyncClient, path: str) -> None:
    answer = await queries.get(f"/proofs/{path}")
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["code"] == "not_signed"


async def test_the_entries_are_for_auditors_and_the_rest_for_anyone(
    queries: httpx.AsyncClient, history: History, signing: Settings
) -> None:
    history.create([1])
    await grow_and_sign(signing)
    del queries.headers["Authorization"]
    for path in ("key", "checkpoint", "inclusion/1", "consistency?from=0", "tile/0/000.p/1"):
        assert (await queries.get(f"/proofs/{path}")).status_code == 200
    assert (await queries.get("/proofs/tile/entries/000.p/1")).status_code == 401
