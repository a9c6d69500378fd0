"""`muster import`: users from a file, by the rules and events of single creations."""

import csv
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal

import orjson
import uvloop

from command_api.handling import open_handler
from command_api.importing import Importer, Line, Result, line_of
from events.keyring import open_digester, open_keyring
from events.recording import Actor, Metadata
from identity.passwords import Passwords
from identity.roles import Scope
from muster.answers import Answer, Finding, Parts
from muster.failures import CannotRun
from muster.kek import check_kek
from muster.progress import shown_progress
from muster.recorded import recorded
from muster.target import on_database
from runtime import failpoints
from runtime.ids import new_id
from runtime.problems import Fault, Problem
from runtime.settings import Settings

Format = Literal["ndjson", "csv"]

OPERATION: Final = "import"
FORMATS: Final[Mapping[str, Format]] = {".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv"}
COLUMNS: Final = ("email", "display_name", "status", "roles", "attributes", "password", "password_hash")
# of a column of its own for each attribute
ATTRIBUTE: Final = "attributes."
PIECE: Final = 1 << 20


@dataclass(slots=True, kw_only=True)
class Tally:
    """`before` were done by an earlier run of the same file; with --check, `created` are those that would be."""

    created: int = 0
    before: int = 0
    refused: int = 0
    lines: Parts = field(default_factory=Parts)

    def take(self, result: Result) -> None:
        if result.faults:
            self.refused += 1
            self.lines.add(
                {"line": result.line, "status": result.status, "errors": [fault.body() for fault in result.faults]},
                f"line {result.line}: "
                + "; ".join(f"{fault.pointer or '#'} {fault.detail}" for fault in result.faults),
            )
        elif result.status == 200 and result.user_id is not None:  # noqa: PLR2004 - done before
            self.before += 1
        else:
            self.created += 1


def import_users(settings: Settings, file: Path, *, check: bool, operator: str, reason: str | None) -> Answer:
    """What was refused is found. Raises CannotRun, BadKey and the failures of runtime.failures."""
    kind = FORMATS.get(file.suffix.lower())
    if kind is None:
        raise CannotRun(f"{file} is none of {', '.join(FORMATS)}: its name says how it is read")
    failpoints.arm(settings.failpoints)
    try:
        digest, lines = _looked_through(file)
        with file.open("rb") as opened:
            tally = uvloop.run(
                _import(
                    settings,
                    _lines(opened, kind),
                    key=digest,
                    total=lines,
                    parameters={"file": file.name, "sha256": digest, "check": check},
                    operator=operator,
                    reason=reason,
                )
            )
    except OSError as error:
        raise CannotRun(f"{file}: {error.strerror}") from None
    return _answer(tally, check=check)


async def _import(
    settings: Settings,
    lines: Iterator[Line],
    *,
    key: str,
    total: int,
    parameters: Mapping[str, Any],
    operator: str,
    reason: str | None,
) -> Tally:
    keyring, digester = open_keyring(settings), open_digester(settings)
    await on_database(settings, lambda connection: check_kek(connection, keyring.kek))
    passwords = Passwords(settings)
    request_id = str(new_id())
    metadata = Metadata(
        actor=Actor(subject=operator, kind="operator"),
        request_id=request_id,
        correlation_id=request_id,
        causation_id=request_id,
        reason=reason,
    )
    check = bool(parameters["check"])
    tally = Tally()
    nothing_to_record = nullcontext(dict[str, Any]())
    async with nothing_to_record if check else recorded(settings, operator, OPERATION, parameters) as counts:
        try:
            async with open_handler(
                settings, keyring=keyring, digester=digester, passwords=passwords, committed=lambda: None
            ) as handler:
                importer = Importer(
                    None if check else handler,
                    passwords,
                    digester,
                    caller=OPERATION,
                    authority=frozenset(Scope),
                    metadata=metadata,
                    key=key,
                )
                with shown_progress("checking" if check else "importing", total) as advanced:
                    async for result in importer.results(_one_by_one(lines)):
                        tally.take(result)
                        advanced(result.line)
        finally:
            passwords.close()
            counts.update(_counts(tally))
    return tally


def _counts(tally: Tally) -> dict[str, int]:
    return {"created": tally.created, "done_before": tally.before, "refused": tally.refused}


async def _one_by_one(lines: Iterator[Line]) -> AsyncIterator[Line]:
    for line in lines:
        yield line


def _looked_through(file: Path) -> tuple[str, int]:
    """The file's SHA-256, which names it for a run that goes on, and how many lines it has."""
    digest, lines = hashlib.sha256(), 0
    with file.open("rb") as opened:
        while piece := opened.read(PIECE):
            digest.update(piece)
            lines += piece.count(b"\n")
    return digest.hexdigest(), lines


def _lines(opened: IO[bytes], kind: Format) -> Iterator[Line]:
    if kind == "ndjson":
        for number, text in enumerate(opened, 1):
            if text.strip():
                yield line_of(number, text)
        return
    yield from _rows(opened)


def _rows(opened: IO[bytes]) -> Iterator[Line]:
    """CSV (RFC 4180) in UTF-8 with a line of names; an empty cell is a field left out."""
    reader = csv.DictReader(_decoded(opened), strict=True)
    try:
        names = reader.fieldnames or []
        unknown = [name for name in names if name not in COLUMNS and not name.startswith(ATTRIBUTE)]
        if "email" not in names or unknown:
            told = f"there is no column {', '.join(unknown)}" if unknown else "there is no column email"
            raise CannotRun(f"{told}: the columns are {', '.join(COLUMNS)}, and {ATTRIBUTE}NAME for any attribute")
        for row in reader:
            yield _line_of_row(reader.line_num, row)
    except csv.Error as error:
        raise CannotRun(f"line {reader.line_num}: {error}") from None


def _decoded(opened: IO[bytes]) -> Iterator[str]:
    for number, text in enumerate(opened, 1):
        try:
            yield text.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise CannotRun(f"line {number} is not UTF-8") from None


def _line_of_row(number: int, row: Mapping[str | None, Any]) -> Line:
    if None in row or None in row.values():
        return _bad_row(number, "has not as many fields as the first line has names", "#")
    record: dict[str, Any] = {name: row[name] for name in COLUMNS if row.get(name)}
    if "roles" in record:
        record["roles"] = record["roles"].replace(",", " ").replace(";", " ").split()
    attributes: dict[str, Any] = {}
    if "attributes" in record:
        try:
            attributes = orjson.loads(record["attributes"])
        except orjson.JSONDecodeError as error:
            return _bad_row(number, f"not valid JSON: {error.msg}", "#/attributes")
    named = {str(name).removeprefix(ATTRIBUTE): cell for name, cell in row.items() if cell and _is_attribute(name)}
    if named or attributes:
        record["attributes"] = {**attributes, **named}
    return Line(number=number, record=record)


def _is_attribute(name: str | None) -> bool:
    return name is not None and name.startswith(ATTRIBUTE)


def _bad_row(number: int, detail: str, pointer: str) -> Line:
    fault = Fault(detail=detail, code="malformed_row", pointer=pointer)
    return Line(number=number, record=None, problem=Problem(400, "malformed_row", detail, faults=[fault]))


def _answer(tally: Tally, *, check: bool) -> Answer:
    words = "would be created" if check else "created"
    before = f", {tally.before:,} were there from an earlier run" if tally.before else ""
    refused = Finding(code="lines_refused", detail=f"{tally.refused} lines were refused")
    return Answer(
        result={**_counts(tally), "check": check, "lines": tally.lines.documents},
        words=[f"{tally.created:,} {words}{before}, {tally.refused:,} refused"],
        findings=[refused] if tally.refused else [],
    )
