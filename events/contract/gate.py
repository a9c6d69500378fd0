"""What must hold before a change of the events' types can go in: nobody who follows the topics is broken by it."""

import subprocess
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Final

import orjson

from events.contract import asyncapi
from events.contract.bodies import BODIES, version_of
from events.contract.compatibility import breaks_between, same_structure
from events.contract.schemas import ASYNCAPI, FOLDER, Schema, generated, name_and_version, published, written
from events.envelope import schema_file

MAKE: Final = "run `make schemas`"
NEXT_VERSION: Final = (
    "A version that was published does not change. Take the change back and make the next version: an upcaster in"
    " events/versions.py that reads this one as that, then `make schemas` and golden files for it"
)


def problems(folder: Path = FOLDER) -> list[str]:
    """Everything that is wrong, each in a sentence that says what to do; none: the types may go in."""
    committed = published(folder)
    found = [problem for name in BODIES for problem in judged(name, generated(name), committed.get(name, {}))]
    found += [
        f"{name}: there is no such type any more, and its events are in the log: put it back"
        for name in committed.keys() - BODIES.keys()
    ]
    if not found and asyncapi.written_document() != _content(folder / ASYNCAPI):
        found.append(f"{ASYNCAPI} is not what the types say: {MAKE}")
    return found + list(_altered(folder, committed))


def judged(name: str, now: Schema, committed: Mapping[int, Schema], version: int | None = None) -> Iterator[str]:
    """What is wrong with a type as it is now, beside every version that was published."""
    number = version_of(name) if version is None else version
    for missing in sorted(set(range(1, number)) - committed.keys()):
        yield f"{name}: version {missing} is not in events/schemas: put it back, events of it are in the log"
    for unknown in sorted(one for one in committed if one > number):
        yield f"{name}: events/schemas has version {unknown}, the types make version {number}: an upcaster is missing"
    before = {one: schema for one, schema in committed.items() if one != number}
    told = committed.get(number)
    if told is None:
        yield f"{name}: version {number} is not in events/schemas: {MAKE}"
    elif told != now:
        if same_structure(told, now):
            yield f"{name}: version {number} is described in other words: {MAKE}"
        else:
            broken = list(_broken(name, now, {number: told}))
            yield from broken
            if not broken:
                yield f"{name}: version {number} was published and is another now. {NEXT_VERSION}"
    yield from _broken(name, now, before)
    for older, newer in combinations(sorted(before), 2):
        yield from _broken(name, before[newer], {older: before[older]})


def _broken(name: str, now: Schema, committed: Mapping[int, Schema]) -> Iterator[str]:
    for number, schema in sorted(committed.items()):
        for one in breaks_between(now, schema, old_version=number):
            yield f"{name}: {one.field} {one.problem}. Instead: {one.instead}"


def _altered(folder: Path, committed: Mapping[str, Mapping[int, Schema]]) -> Iterator[str]:
    """Versions that once were committed with another structure: the history knows what consumers have been told."""
    for path, commit, content in _history(folder):
        parts = name_and_version(path)
        if parts is None:
            continue
        name, number = parts
        now = committed.get(name, {}).get(number)
        if now is None:
            yield f"{name}: version {number} was committed in {commit[:12]} and is gone: put it back"
        elif not same_structure(now, content):
            yield f"{name}: version {number} is not what commit {commit[:12]} has published. {NEXT_VERSION}"


def _history(folder: Path) -> Iterator[tuple[str, str, Schema]]:
    """Each schema as each commit had it that touched one; nothing where there is no history (a tarball)."""
    log = _git(folder, "log", "--format=%H", "--", ".")
    for commit in (log or b"").decode().split():
        for line in (_git(folder, "ls-tree", "--name-only", commit, "./") or b"").decode().split():
            content = _git(folder, "show", f"{commit}:./{Path(line).name}")
            if content and name_and_version(Path(line).name) is not None:
                yield Path(line).name, commit, orjson.loads(content)


def _git(folder: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)  # noqa: S607 - whoever's git it is
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def write(folder: Path = FOLDER) -> list[str]:
    """Write what the types say: new versions, and other words. What would change a version is refused, and told."""
    committed = published(folder)
    found: list[str] = []
    for name in BODIES:
        now, number = generated(name), version_of(name)
        told = committed.get(name, {}).get(number)
        if told is not None and not same_structure(told, now):
            found += judged(name, now, committed[name])
            continue
        if told is None:
            found += _broken(name, now, committed.get(name, {}))
        if not found:
            (folder / schema_file(name, number)).write_bytes(written(now))
    if not found:
        (folder / ASYNCAPI).write_bytes(asyncapi.written_document())
    return found


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
