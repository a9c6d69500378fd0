"""What consumers have stored must stay readable: a version's wire form never changes once it was published.

There is a file of every version ever written. That of the newest is what is written now; those of older ones stay as
they are, and are read as the newest. A change of a golden file is a break: add a new version beside it instead.
"""

from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from command_api.decide import decide
from events.contract.schemas import published
from events.envelope import SNAPSHOT, Envelope, document_of, history_envelope, snapshot_envelope
from events.user import Status, UserEvent
from events.versions import newest
from events.wire import NAMES, TYPES, erased_event, event_from_wire
from tests.people import ADA, ADA_CREATED, ORIGIN, change, delete, recorded

GOLDEN = Path(__file__).parent / "golden"
SCHEMAS = published()
FILES = sorted(GOLDEN.iterdir())


def events() -> dict[str, UserEvent]:
    found = [
        ADA_CREATED,
        decide(
            ADA,
            change(
                {"team": None, "floor": 3, "tags": ["a", 1.5, True, None]},
                email="ada@lovelace.example",
                display_name=None,
                status=Status.DISABLED,
                roles=("user",),
            ),
        ),
        decide(ADA, delete()),
    ]
    return {NAMES[type(event)]: event for event in found if event is not None}


def as_json(envelope: Envelope) -> dict[str, Any]:
    return {
        "key": envelope.key.decode(),
        "headers": {name: value.decode() for name, value in envelope.headers},
        "value": None if envelope.value is None else orjson.loads(envelope.value),
    }


def golden(name: str, version: int, *, of_erased: bool = False) -> Path:
    return GOLDEN / f"{name}.v{version}{'.erased' if of_erased else ''}.json"


def test_every_version_of_every_type_has_its_golden_files() -> None:
    assert events().keys() == TYPES.keys()
    wanted = {
        golden(name, version, of_erased=of_erased)
        for name in TYPES
        for version in range(1, newest(name) + 1)
        for of_erased in (False, True)
    }
    assert set(FILES) == wanted


@pytest.mark.parametrize("of_erased", [False, True])
@pytest.mark.parametrize("name", sorted(TYPES))
def test_an_event_is_published_as_it_always_was(name: str, *, of_erased: bool) -> None:
    event = events()[name]
    found = recorded(erased_event(event) if of_erased else event)
    both = {
        "history": as_json(history_envelope(found, ORIGIN)),
        "snapshot": as_json(snapshot_envelope(found, ORIGIN)),
    }
    file = golden(name, newest(name), of_erased=of_erased)
    assert orjson.dumps(both, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE) == file.read_bytes()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_was_published_is_valid_under_every_version_of_its_schema(file: Path) -> None:
    record = orjson.loads(file.read_bytes())
    schemas = SCHEMAS[file.name.split(".")[0]].values()
    for schema in schemas:
        Draft202012Validator(schema, format_checker=FormatChecker()).validate(record["history"]["value"])
    if record["snapshot"]["value"] is not None:
        for schema in SCHEMAS[SNAPSHOT].values():
            Draft202012Validator(schema, format_checker=FormatChecker()).validate(record["snapshot"]["value"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_was_published_names_the_schema_that_is_served(file: Path) -> None:
    record = orjson.loads(file.read_bytes())
    name, version = file.name.split(".")[:2]
    assert record["history"]["headers"]["ce_dataschema"] == f"{ORIGIN.schemas}/{name}.{version}.json"
    assert record["history"]["headers"]["ce_type"] == f"muster.{name}.{version}"
    assert record["snapshot"]["headers"]["ce_dataschema"] == f"{ORIGIN.schemas}/{SNAPSHOT}.v1.json"


@pytest.mark.parametrize("file", [file for file in FILES if ".erased" not in file.name], ids=lambda file: file.name)
def test_what_was_published_is_read_as_the_newest(file: Path) -> None:
    record = orjson.loads(file.read_bytes())["history"]
    headers = [(name, value.encode()) for name, value in record["headers"].items()]
    document = document_of(headers, orjson.dumps(record["value"]))
    name = file.name.split(".")[0]
    event = events()[name]
    assert event_from_wire(event_id=event.id, type_name=name, document=document) == event
