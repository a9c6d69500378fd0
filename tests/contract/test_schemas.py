"""The JSON Schemas hold what is published, all of it and nothing that is not told."""

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator, FormatChecker

from events.contract.bodies import BODIES, EXAMPLES, version_of
from events.contract.schemas import Schema, published
from events.envelope import SNAPSHOT, history_envelope, snapshot_envelope
from events.wire import NAMES, erased_event
from tests.people import ORIGIN, create, recorded
from tests.random_histories import COMMANDS, OBJECTS, history

SCHEMAS = published()


def closed(schema: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """The same for a writer: no field that it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {name: closed(value) for name, value in schema.items()}  # pyright: ignore[reportUnknownVariableType]
    return found | {"additionalProperties": False} if "properties" in found else found


def newest(name: str) -> Draft202012Validator:
    schema: Schema = closed(SCHEMAS[name][version_of(name)])
    return Draft202012Validator(schema, format_checker=FormatChecker())


VALIDATORS = {name: newest(name) for name in BODIES}


@pytest.mark.parametrize("name", sorted(BODIES))
def test_schemas_are_schemas_and_their_examples_are_of_them(name: str) -> None:
    for schema in SCHEMAS[name].values():
        Draft202012Validator.check_schema(schema)
    VALIDATORS[name].validate(EXAMPLES[name])


@settings(derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(attributes=OBJECTS, rest=COMMANDS)
def test_whatever_is_published_is_what_its_schema_says(attributes: dict[str, Any], rest: list[Any]) -> None:
    for event in history(create(attributes=attributes), rest, deleted=True):
        for one in (event, erased_event(event)):
            found = recorded(one)
            value = history_envelope(found, ORIGIN).value
            assert value is not None
            VALIDATORS[NAMES[type(event)]].validate(orjson.loads(value))
            state = snapshot_envelope(found, ORIGIN).value
            if state is not None:
                VALIDATORS[SNAPSHOT].validate(orjson.loads(state))
