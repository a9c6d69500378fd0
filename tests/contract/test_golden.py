"""What consumers have stored must stay readable: a version's wire form never changes once it was published.

A change of a golden file is a break. Add a new version beside it instead.
"""

from pathlib import Path
from typing import Any

import orjson
import pytest

from command_api.decide import decide
from events.envelope import Envelope, history_envelope, snapshot_envelope
from events.user import Status, UserEvent
from events.wire import NAMES, SCHEMA, TYPES
from tests.people import ADA, ADA_CREATED, change, delete, erased, recorded

GOLDEN = Path(__file__).parent / "golden"
SOURCE = "/muster/users"


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


def test_every_type_has_a_golden_file() -> None:
    assert {file.name for file in GOLDEN.iterdir()} >= {f"{name}.v{SCHEMA}.json" for name in TYPES}
    assert events().keys() == TYPES.keys()


@pytest.mark.parametrize("name", sorted(TYPES))
def test_an_erased_users_event_is_published_as_it_always_was(name: str) -> None:
    event = recorded(erased(events()[name]))
    published = {
        "history": as_json(history_envelope(event, SOURCE)),
        "snapshot": as_json(snapshot_envelope(event, SOURCE)),
    }
    golden = (GOLDEN / f"{name}.v{SCHEMA}.erased.json").read_bytes()
    assert orjson.dumps(published, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE) == golden


@pytest.mark.parametrize("name", sorted(TYPES))
def test_an_event_is_published_as_it_always_was(name: str) -> None:
    event = recorded(events()[name])
    published = {
        "history": as_json(history_envelope(event, SOURCE)),
        "snapshot": as_json(snapshot_envelope(event, SOURCE)),
    }
    golden = (GOLDEN / f"{name}.v{SCHEMA}.json").read_bytes()
    assert orjson.dumps(published, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE) == golden
