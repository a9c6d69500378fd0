"""An export checked against what was signed of the log, with no database and no key-encryption key."""

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final, cast

import orjson

from events.proofs.checking import LogCheck, Wrong
from events.proofs.log_check import Checked
from events.proofs.merkle import HASH_BYTES, Frontier
from events.proofs.notes import BadCheckpoint, BadNote, Checkpoint, Verifier
from muster.export_tree import HASHES
from muster.failures import CannotRun
from muster.manifest import NoExport, is_as_told, manifest_of
from muster.witnessing import opened

HASHES_AT_ONCE: Final = 8192


def manifest_to_check(folder: Path) -> dict[str, Any]:
    """Raises CannotRun for what is no export of events as they are stored."""
    try:
        manifest = manifest_of(folder)
    except NoExport as error:
        raise CannotRun(str(error)) from None
    if not manifest["events"]:
        raise CannotRun("the export has no events")
    return manifest


def check_export(
    folder: Path,
    manifest: Mapping[str, Any],
    *,
    key: Verifier,
    checkpoint: Checkpoint | None,
    advanced: Callable[[int], None] = lambda _: None,
) -> Checked:
    """What was compared, and what is wrong first. Without a `checkpoint` the export's own is taken, if `key` signed it.

    Raises CannotRun when there is none at all.
    """
    checked = Checked()
    with ExitStack() as stack:
        first = int(manifest["first"])
        checked.wrong = _check(stack, folder, manifest, first, key, checkpoint, checked, advanced)
    return checked


def _check(
    stack: ExitStack,
    folder: Path,
    manifest: Mapping[str, Any],
    first: int,
    key: Verifier,
    checkpoint: Checkpoint | None,
    checked: Checked,
    advanced: Callable[[int], None],
) -> Wrong | None:
    tree: Mapping[str, Any] = manifest.get("tree") or {}
    roots = dict[int, bytes]()
    for kept in (checkpoint, _own_checkpoint(tree, key)):
        if isinstance(kept, Wrong):
            return kept
        if kept is not None and roots.setdefault(kept.size, kept.root) != kept.root:
            return Wrong(position=first, what=f"two checkpoints of {kept.size} events were signed: a fork")
    if not roots:
        raise CannotRun("the export has no checkpoint: give one with --checkpoint, from /proofs/checkpoint")
    checked.checkpoints = len(roots)
    start = _start(tree, first)
    if start is None:
        return Wrong(position=first, what="the manifest does not say what the tree was before this position")
    hashes = _Hashes(stack, folder / HASHES, first)
    checked.tree = first - 1 + hashes.count
    check = LogCheck(roots, start=start, hash_at=hashes.at)
    wrong = None
    for name in _files_of_events(manifest):
        documents = _documents(folder / name)
        if documents is None:
            return Wrong(position=check.size + 1, what=f"{name} is missing")
        wrong = check.take(_counted(documents, first, advanced))
        checked.events, checked.proved = check.size - first + 1, check.proved
        if wrong is not None:
            return wrong
    return check.end() or _check_files(folder, manifest, check.size)


def _own_checkpoint(tree: Mapping[str, Any], key: Verifier) -> Checkpoint | Wrong | None:
    note = tree.get("checkpoint")
    if note is None:
        return None
    try:
        return opened(str(note).encode(), key)
    except (BadNote, BadCheckpoint) as error:
        return Wrong(position=1, what=f"the export's checkpoint is not one that {key.name} signed: {error}")


def _start(tree: Mapping[str, Any], first: int) -> Frontier | None:
    if first == 1:
        return Frontier()
    try:
        start = tree["start"]
        found = Frontier(start["size"], tuple(base64.b64decode(root, validate=True) for root in start["roots"]))
    except (KeyError, TypeError, ValueError):
        return None
    return found if found.size == first - 1 else None


def _files_of_events(manifest: Mapping[str, Any]) -> list[str]:
    return [file["name"] for file in manifest["files"] if file["name"].startswith("events-")]


def _documents(file: Path) -> Iterator[object] | None:
    try:
        lines = file.open("rb")
    except OSError:
        return None
    return _parsed(lines)


def _parsed(lines: IO[bytes]) -> Iterator[object]:
    with lines:
        for line in lines:
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError:
                yield None


def _counted(documents: Iterator[object], first: int, advanced: Callable[[int], None]) -> Iterator[object]:
    for document in documents:
        if isinstance(document, dict) and isinstance(at := cast("dict[str, object]", document).get("position"), int):
            advanced(max(0, at - first + 1))
        yield document


class _Hashes:
    """The leaf hashes that the export has, from the position `first` on."""

    def __init__(self, stack: ExitStack, file: Path, first: int) -> None:
        self._first = first
        self._start = 0
        self._block = b""
        self.count = 0
        try:
            self._file = stack.enter_context(file.open("rb"))
        except OSError:
            return
        self.count = file.stat().st_size // HASH_BYTES

    def at(self, position: int) -> bytes | None:
        index = position - self._first
        if not 0 <= index < self.count:
            return None
        if not self._start <= index < self._start + len(self._block) // HASH_BYTES:
            self._start = index
            self._file.seek(index * HASH_BYTES)
            self._block = self._file.read(HASHES_AT_ONCE * HASH_BYTES)
        offset = (index - self._start) * HASH_BYTES
        return self._block[offset : offset + HASH_BYTES]


def _check_files(folder: Path, manifest: Mapping[str, Any], last: int) -> Wrong | None:
    """What the tree does not vouch for: the counts, and the files beside the events."""
    if (manifest["last"], manifest["events"]) != (last, last - manifest["first"] + 1):
        return Wrong(position=last, what=f"the manifest says that the export ends at {manifest['last']}")
    for file in manifest["files"]:
        try:
            as_told = is_as_told(folder, file)
        except OSError as error:
            return Wrong(position=file["first"] or 1, what=f"{file['name']}: {error.strerror}")
        if not as_told:
            return Wrong(position=file["first"] or 1, what=f"{file['name']} is not what the manifest says")
    return None
