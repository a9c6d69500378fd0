"""JSON Schemas (draft 2020-12) of the topics' records: those that were published, and what the types say now."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from events.contract.bodies import BODIES, EXAMPLES, version_of
from events.envelope import schema_file

FOLDER: Final = Path(__file__).parent.parent / "schemas"
ASYNCAPI: Final = "asyncapi.json"
DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_FILE: Final = re.compile(r"([A-Za-z]+)\.v([1-9][0-9]*)\.json", re.ASCII)

Schema = dict[str, Any]


class _Untitled(GenerateJsonSchema):
    """Without a title for each field that only says its name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - pydantic's own types, and name
        return False


def generated(name: str) -> Schema:
    """The schema of the newest version of a body, as its type has it."""
    version = version_of(name)
    return schema_of(BODIES[name], name, version) | {"examples": [EXAMPLES[name]]}


def schema_of(body: Any, name: str, version: int) -> Schema:  # noqa: ANN401 - a type
    """The schema of a type. Its `$id` is relative: it is what the schema was fetched by, wherever that is."""
    made = TypeAdapter(body).json_schema(schema_generator=_Untitled)
    head = {"$schema": DRAFT, "$id": schema_file(name, version), "title": f"{name}, version {version}"}
    return head | {key: value for key, value in made.items() if key != "title"}


def published(folder: Path = FOLDER) -> dict[str, dict[int, Schema]]:
    """Every version that was committed, by name and number."""
    found: dict[str, dict[int, Schema]] = {}
    for path in sorted(folder.glob("*.json")):
        if (parts := name_and_version(path.name)) is not None:
            found.setdefault(parts[0], {})[parts[1]] = orjson.loads(path.read_bytes())
    return found


def name_and_version(file: str) -> tuple[str, int] | None:
    """What a schema's file name says; None for another file's."""
    found = _FILE.fullmatch(file)
    return None if found is None else (found[1], int(found[2]))


def written(document: Mapping[str, Any]) -> bytes:
    """As files have it."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
