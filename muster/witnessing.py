"""Somebody who remembers: the last checkpoint of a log, kept elsewhere, and whether the next one adds to it."""

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import orjson

from events.proofs.merkle import EMPTY_ROOT, BadProof, check_consistency
from events.proofs.notes import BadCheckpoint, BadNote, BadVerifier, Checkpoint, Verifier, open_note
from muster.failures import CannotRun

TIMEOUT: Final = 10.0
NOT_FOUND: Final = 404

Kind = Literal["first", "same", "grown"]


class Contradiction(Exception):
    """The log shows a history that is not the one it showed before. `note` is what it showed, if anything."""

    def __init__(self, code: Literal["fork", "rollback", "bad_note"], message: str, note: bytes) -> None:
        super().__init__(message)
        self.code: Literal["fork", "rollback", "bad_note"] = code
        self.note = note


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a look found: the log is as before, has grown, or is met for the first time."""

    kind: Kind
    before: int
    checkpoint: Checkpoint


def read_key(file: Path) -> Verifier:
    """The key that a log is known by, as /proofs/key gives it. Raises CannotRun."""
    try:
        return Verifier.parse(file.read_text().strip())
    except (OSError, UnicodeDecodeError) as error:
        raise CannotRun(f"{file}: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    except BadVerifier as error:
        raise CannotRun(f"{file} is no key: {error}. Get it from /proofs/key of the query API") from None


def read_checkpoint(file: Path, key: Verifier) -> Checkpoint:
    """A checkpoint that was kept. Raises CannotRun."""
    try:
        return opened(file.read_bytes(), key)
    except OSError as error:
        raise CannotRun(f"{file}: {error.strerror}") from None
    except (BadNote, BadCheckpoint) as error:
        raise CannotRun(f"{file} is no checkpoint that {key.name} signed: {error}") from None


def opened(note: bytes, key: Verifier) -> Checkpoint:
    """Raises BadNote and BadCheckpoint."""
    checkpoint = Checkpoint.parse(open_note(note, [key]))
    if checkpoint.origin != key.name:
        raise BadCheckpoint(f"it is one of {checkpoint.origin!r}")
    return checkpoint


def look(url: str, key: Verifier, state: Path) -> Seen:
    """Compare what a log shows now with what is kept in `state`, and keep it there if it adds to that.

    Raises Contradiction, after which `state` is as it was and STATE.contradiction has what was shown, and CannotRun
    when the log could not be asked.
    """
    kept = read_checkpoint(state, key) if state.exists() else None
    try:
        with httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client:
            return _look(client, key, state, kept)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CannotRun(f"{url} could not be asked: {error or type(error).__name__}") from None
    except Contradiction as found:
        _replace(state.with_name(f"{state.name}.contradiction"), found.note)
        raise


def _look(client: httpx.Client, key: Verifier, state: Path, kept: Checkpoint | None) -> Seen:
    answer = client.get("/proofs/checkpoint")
    if answer.status_code == NOT_FOUND:
        if kept is None:
            raise CannotRun("the log has no checkpoint yet: look again once it has an event")
        raise Contradiction("rollback", f"the log shows no checkpoint, and it had signed {kept.size} events", b"")
    note = answer.raise_for_status().content
    try:
        shown = opened(note, key)
    except (BadNote, BadCheckpoint) as error:
        raise Contradiction("bad_note", f"what the log shows is not signed by {key.name}: {error}", note) from None
    before = kept if kept is not None else Checkpoint(key.name, 0, EMPTY_ROOT)
    if shown.size < before.size:
        what = f"the log shows {shown.size} events, and it had signed {before.size}: it was rolled back"
        raise Contradiction("rollback", what, note)
    proof: list[bytes] = []
    if 0 < before.size < shown.size:
        proof = _proof(client, before.size, shown.size, note)
    try:
        check_consistency(before.size, shown.size, before.root, shown.root, proof)
    except BadProof as error:
        what = f"the log's {shown.size} events do not add to the {before.size} that it had signed: {error}"
        raise Contradiction("fork", what, note) from None
    _replace(state, note)
    kind: Kind = "first" if kept is None else "same" if shown.size == before.size else "grown"
    return Seen(kind=kind, before=before.size, checkpoint=shown)


def _proof(client: httpx.Client, first: int, second: int, note: bytes) -> list[bytes]:
    answer = client.get("/proofs/consistency", params={"from": first, "to": second}).raise_for_status()
    try:
        found: dict[str, Any] = orjson.loads(answer.content)
        return [base64.b64decode(each, validate=True) for each in found["proof"]]
    except (ValueError, KeyError, TypeError):
        raise Contradiction("fork", f"what the log gives as proof from {first} to {second} is none", note) from None


def _replace(file: Path, content: bytes) -> None:
    """At once: a crash leaves what was there, or what is to be there."""
    made = file.with_name(f".{file.name}")
    try:
        with made.open("wb") as opened_file:
            opened_file.write(content)
            opened_file.flush()
            os.fsync(opened_file.fileno())
        made.replace(file)
    except OSError as error:
        raise CannotRun(f"{file}: {error.strerror}") from None
