"""Whatever is done to a log behind its tree's back is found, at the first position that it touches."""

import base64
import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import pytest

from events.proofs.checking import LogCheck, Wrong
from events.proofs.leaves import leaf_of
from events.proofs.merkle import Frontier, leaf_hash

EVENTS = 40
USERS = 9
TAMPERINGS = 10_000
# with as many, each log is tampered with before another is made
TRIES = 50

Document = dict[str, Any]
Tamper = Callable[[random.Random, list[Document]], None]


def log_of(chance: random.Random, events: int = EVENTS) -> list[Document]:
    versions = dict.fromkeys(range(USERS), 0)
    documents: list[Document] = []
    for position in range(1, events + 1):
        user = chance.randrange(USERS)
        versions[user] += 1
        documents.append(
            {
                "position": position,
                "recorded_at": f"2026-03-01T00:00:{position // 10:02}.000000Z",
                "user_id": str(UUID(int=user)),
                "version": versions[user],
                "type": "UserCreated" if versions[user] == 1 else "UserUpdated",
                "schema": 1,
                "event_id": str(UUID(int=chance.getrandbits(128))),
                "data": {"record": {"status": "active", "roles": ["user"]}, "changed": ["status"], "changes": {}},
                "sealed": base64.b64encode(chance.randbytes(40)).decode(),
                "metadata": {"actor": {"subject": "ada", "kind": "operator"}, "request_id": str(position)},
            }
        )
    return documents


@dataclass(frozen=True, slots=True)
class Kept:
    """What the tamperer cannot alter, or forgets to: the signed roots, and the hashes that the tree holds."""

    roots: dict[int, bytes]
    hashes: list[bytes]

    @classmethod
    def of(cls, documents: Sequence[Document], sizes: Sequence[int]) -> "Kept":
        hashes = [leaf_hash(leaf_of(document)) for document in documents]
        roots = {size: Frontier().grow(hashes[:size])[0].root() for size in sizes}
        return cls(roots, hashes)

    def check(self, documents: Sequence[object], *, hashes: bool = True) -> Wrong | None:
        known = self.hashes if hashes else []
        check = LogCheck(self.roots, hash_at=lambda at: known[at - 1] if at <= len(known) else None)
        return check.take(documents) or check.end()


def copy_of(documents: list[Document]) -> list[Document]:
    return orjson.loads(orjson.dumps(documents))


def flip(chance: random.Random, documents: list[Document]) -> None:
    document = chance.choice(documents)
    name = chance.choice(["recorded_at", "user_id", "type", "event_id", "sealed"])
    at = chance.randrange(len(document[name]))
    document[name] = document[name][:at] + chr(ord(document[name][at]) ^ 1) + document[name][at + 1 :]


def renumber(chance: random.Random, documents: list[Document]) -> None:
    document = chance.choice(documents)
    name = chance.choice(["position", "version", "schema"])
    document[name] += chance.choice([-1, 1, 2, 1000])


def rewrite(chance: random.Random, documents: list[Document]) -> None:
    document = chance.choice(documents)
    match chance.randrange(4):
        case 0:
            document["data"]["record"]["status"] = "disabled"
        case 1:
            document["metadata"]["actor"]["subject"] = "eve"
        case 2:
            document["metadata"]["reason"] = "none"
        case _:
            del document["data"]["record"]["roles"]


def delete(chance: random.Random, documents: list[Document]) -> None:
    documents.remove(chance.choice(documents[:-1]))


def delete_and_close(chance: random.Random, documents: list[Document]) -> None:
    gone = chance.randrange(len(documents) - 1)
    del documents[gone]
    for position, document in enumerate(documents[gone:], gone + 1):
        document["position"] = position


def swap_places(chance: random.Random, documents: list[Document]) -> None:
    one, two = chance.sample(range(len(documents)), 2)
    documents[one], documents[two] = documents[two], documents[one]


def swap_and_renumber(chance: random.Random, documents: list[Document]) -> None:
    swap_places(chance, documents)
    for position, document in enumerate(documents, 1):
        document["position"] = position


def swap_ciphertexts(chance: random.Random, documents: list[Document]) -> None:
    one, two = chance.sample(documents, 2)
    one["sealed"], two["sealed"] = two["sealed"], one["sealed"]


def truncate(chance: random.Random, documents: list[Document]) -> None:
    del documents[chance.randrange(len(documents)) :]


def repeat(chance: random.Random, documents: list[Document]) -> None:
    at = chance.randrange(len(documents))
    documents.insert(at, copy.deepcopy(documents[at]))


def insert(chance: random.Random, documents: list[Document]) -> None:
    at = chance.randrange(len(documents))
    made = {**copy.deepcopy(documents[at]), "user_id": str(UUID(int=99)), "version": 1}
    documents.insert(at, made)
    for position, document in enumerate(documents, 1):
        document["position"] = position


def fork(chance: random.Random, documents: list[Document]) -> None:
    at = chance.randrange(len(documents))
    documents[at:] = log_of(chance, len(documents))[at:]


def mangle(chance: random.Random, documents: list[Any]) -> None:
    at = chance.randrange(len(documents))
    documents[at] = chance.choice([None, [], "x", {}, {**documents[at], "more": 1}, {**documents[at], "data": "x"}])


TAMPERERS: Sequence[Tamper] = (
    flip,
    renumber,
    rewrite,
    delete,
    delete_and_close,
    swap_places,
    swap_and_renumber,
    swap_ciphertexts,
    truncate,
    repeat,
    insert,
    fork,
    mangle,
)


def first_touched(before: Sequence[Document], after: Sequence[object]) -> int:
    for position, (old, new) in enumerate(zip(before, after, strict=False), 1):
        if old != new:
            return position
    return min(len(before), len(after)) + 1


@pytest.mark.parametrize("tamper", TAMPERERS, ids=lambda tamper: tamper.__name__)
def test_every_tampering_is_found_where_it_begins(tamper: Tamper) -> None:
    chance = random.Random(tamper.__name__)  # noqa: S311 - no secret
    for _ in range(TAMPERINGS // len(TAMPERERS) // TRIES + 1):
        before = log_of(chance)
        sizes = sorted({EVENTS, *(chance.randrange(1, EVENTS) for _ in range(3))})
        kept = Kept.of(before, sizes)
        assert kept.check(before) is None
        for _ in range(TRIES):
            after = copy_of(before)
            tamper(chance, after)
            wrong = kept.check(after)
            assert wrong is not None
            assert wrong.position == first_touched(before, after)


@pytest.mark.parametrize("tamper", TAMPERERS, ids=lambda tamper: tamper.__name__)
def test_it_is_found_even_if_the_tree_was_made_to_fit(tamper: Tamper) -> None:
    chance = random.Random(tamper.__name__)  # noqa: S311 - no secret
    before = log_of(chance)
    kept = Kept.of(before, [EVENTS // 2, EVENTS])
    for _ in range(TRIES):
        after = copy_of(before)
        tamper(chance, after)
        assert kept.check(after, hashes=False) is not None


def test_a_hash_of_the_tree_that_was_altered_is_told_from_an_event_that_was() -> None:
    documents = log_of(random.Random(1))  # noqa: S311 - no secret
    kept = Kept.of(documents, [EVENTS])
    kept.hashes[7] = bytes(32)
    wrong = kept.check(documents)
    assert wrong is not None
    assert wrong.position == 8
    assert "the event is as it was signed" in wrong.what


def test_what_was_not_signed_yet_is_compared_with_the_tree() -> None:
    documents = log_of(random.Random(2))  # noqa: S311 - no secret
    kept = Kept.of(documents, [EVENTS // 2])
    assert kept.check(documents) is None
    documents[EVENTS - 2]["sealed"] = "AAAA"
    wrong = kept.check(documents)
    assert wrong is not None
    assert wrong.position == EVENTS - 1


def test_a_stretch_is_checked_from_the_roots_before_it() -> None:
    documents = log_of(random.Random(3))  # noqa: S311 - no secret
    kept = Kept.of(documents, [EVENTS])
    for first in (1, 2, 17, 32, 33, EVENTS):
        start, _ = Frontier().grow(kept.hashes[: first - 1])
        check = LogCheck(kept.roots, start=start, hash_at=lambda _: None)
        assert check.take(documents[first - 1 :]) is None
        assert check.end() is None
        assert check.proved == EVENTS
