"""The gate: a change that breaks who follows the topics is refused, and told by field with what to do instead."""

import copy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import orjson
import pytest
from pydantic import Field
from typing_extensions import TypedDict

from events.contract import bodies, gate
from events.contract.compatibility import KEPT, OPTIONAL, STILL, breaks_between
from events.contract.schemas import FOLDER, Schema, generated, published, schema_of, written

NAME = "UserUpdated"
COMMITTED = published()[NAME]
Planted = Callable[[Schema], None]


def changed(plant: Planted) -> Schema:
    schema = copy.deepcopy(COMMITTED[1])
    plant(schema)
    return schema


def user(schema: Schema) -> dict[str, Any]:
    return schema["$defs"]["User"]


def field_is_gone(schema: Schema) -> None:
    del user(schema)["properties"]["roles"]
    user(schema)["required"].remove("roles")


def field_may_be_missing(schema: Schema) -> None:
    user(schema)["required"].remove("display_name")


def new_field_is_required(schema: Schema) -> None:
    user(schema)["properties"]["locale"] = {"type": "string"}
    user(schema)["required"].append("locale")


def other_type(schema: Schema) -> None:
    user(schema)["properties"]["version"] = {"type": "string"}


def null_is_new(schema: Schema) -> None:
    user(schema)["properties"]["created_at"] = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}


def null_is_gone(schema: Schema) -> None:
    user(schema)["properties"]["email"] = {"type": "string"}


def value_is_new(schema: Schema) -> None:
    schema["$defs"]["Status"]["enum"].append("locked")


def value_is_gone(schema: Schema) -> None:
    schema["$defs"]["Status"]["enum"].remove("disabled")


def renamed(schema: Schema) -> None:
    user(schema)["properties"]["name"] = user(schema)["properties"].pop("display_name")
    user(schema)["required"] = ["name" if one == "display_name" else one for one in user(schema)["required"]]


def list_of_others(schema: Schema) -> None:
    user(schema)["properties"]["roles"]["items"] = {"type": "object", "properties": {"name": {"type": "string"}}}


def optional_is_required(schema: Schema) -> None:
    schema["$defs"]["Changes"]["required"] = ["email"]


def wider_number(schema: Schema) -> None:
    user(schema)["properties"]["version"]["minimum"] = 0


def optional_is_another(schema: Schema) -> None:
    schema["$defs"]["Changes"]["properties"]["roles"] = {"$ref": "#/$defs/TextChange"}


def other_format(schema: Schema) -> None:
    user(schema)["properties"]["updated_at"]["format"] = "date"


BREAKING: list[tuple[Planted, str, str]] = [
    (field_is_gone, "user.roles", STILL),
    (field_may_be_missing, "user.display_name", STILL),
    (new_field_is_required, "user.locale", OPTIONAL),
    (other_type, "user.version", KEPT),
    (null_is_new, "user.created_at", KEPT),
    (null_is_gone, "user.email", KEPT),
    (value_is_new, "user.status", KEPT),
    (value_is_gone, "user.status", KEPT),
    (renamed, "user.display_name", STILL),
    (list_of_others, "user.roles[]", KEPT),
    (optional_is_required, "changes.email", OPTIONAL),
    (wider_number, "user.version", KEPT),
    (optional_is_another, "changes.roles.old", KEPT),
    (other_format, "user.updated_at", KEPT),
]


@pytest.mark.parametrize(("plant", "field", "instead"), BREAKING, ids=lambda value: getattr(value, "__name__", ""))
def test_a_change_that_breaks_somebody_is_refused_by_field(plant: Planted, field: str, instead: str) -> None:
    # in the version that was published, and just so in a next one
    in_place = list(gate.judged(NAME, changed(plant), COMMITTED))
    next_one = list(gate.judged(NAME, changed(plant), {**COMMITTED, 2: changed(plant)}, version=2))
    for found in (in_place, next_one):
        assert any(f"{NAME}: {field} " in problem and f"Instead: {instead}" in problem for problem in found), found


def new_optional_field(schema: Schema) -> None:
    user(schema)["properties"]["locale"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}


def new_optional_part(schema: Schema) -> None:
    schema["properties"]["channel"] = {"enum": ["web", "import"], "type": "string"}


def new_optional_change(schema: Schema) -> None:
    schema["$defs"]["Changes"]["properties"]["locale"] = {"$ref": "#/$defs/TextChange"}


def optional_is_gone(schema: Schema) -> None:
    del user(schema)["properties"]["erased"]


def other_words(schema: Schema) -> None:
    user(schema)["description"] = "The record."
    user(schema)["properties"]["email"]["deprecated"] = True


def other_place(schema: Schema) -> None:
    schema["properties"]["user"] = schema["$defs"].pop("User")


COMPATIBLE = [new_optional_field, new_optional_part, new_optional_change, optional_is_gone, other_words, other_place]


@pytest.mark.parametrize("plant", COMPATIBLE)
def test_a_compatible_next_version_may_go_in(plant: Planted) -> None:
    next_one = changed(plant)
    assert breaks_between(next_one, COMMITTED[1], old_version=1) == []
    assert list(gate.judged(NAME, next_one, {**COMMITTED, 2: next_one}, version=2)) == []


@pytest.mark.parametrize("plant", [new_optional_field, optional_is_gone])
def test_even_a_compatible_change_is_not_made_to_what_was_published(plant: Planted) -> None:
    (problem,) = gate.judged(NAME, changed(plant), COMMITTED)
    assert "published and is another now" in problem
    assert "make the next version" in problem


def test_other_words_ask_for_the_files_to_be_written_again() -> None:
    (problem,) = gate.judged(NAME, changed(other_words), COMMITTED)
    assert problem == f"{NAME}: version 1 is described in other words: run `make schemas`"


def test_a_field_does_not_come_back_as_another() -> None:
    """Compatible with the version before it, and not with the first: that is what transitive is about."""

    def locale_is_a_number(schema: Schema) -> None:
        user(schema)["properties"]["locale"] = {"type": "integer"}

    first, third = changed(new_optional_field), changed(locale_is_a_number)
    found = list(gate.judged(NAME, third, {1: first, 2: COMMITTED[1], 3: third}, version=3))
    assert any("user.locale" in problem and "version 1" in problem for problem in found)
    assert not any("version 2" in problem for problem in found)


def test_versions_follow_each_other_without_a_gap() -> None:
    assert "version 2 is not in events/schemas" in next(gate.judged(NAME, COMMITTED[1], COMMITTED, version=3))
    found = list(gate.judged(NAME, COMMITTED[1], {**COMMITTED, 2: COMMITTED[1]}, version=1))
    assert any("an upcaster is missing" in problem for problem in found)


def test_types_are_judged_as_they_are_written() -> None:
    """The same from a type of Python, as a developer changes it."""

    class Locked(TypedDict):
        user: Annotated[dict[str, str], Field(description="not the record any more")]

    found = list(gate.judged(NAME, schema_of(Locked, NAME, 1), COMMITTED))
    assert any(f"{NAME}: changes may be missing now" in problem for problem in found)


def test_the_repository_is_as_it_must_be() -> None:
    assert gate.problems() == []


def test_the_command_says_what_is_wrong_and_fails(tmp_path: Path) -> None:
    """As CI runs it, on a repository of its own whose history has what was published."""
    shutil.copytree(FOLDER.parent, tmp_path / "events", ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("runtime",):
        (tmp_path / package).symlink_to(FOLDER.parent.parent / package)
    check = [sys.executable, "-m", "events.contract", "--check"]
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for arguments in (["init", "-q"], ["add", "events"], ["commit", "-qm", "published"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            check, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
        )

    assert run().returncode == 0, run().stderr
    source = tmp_path / "events" / "contract" / "bodies.py"
    types = source.read_text()
    source.write_text(types.replace("    display_name: str | None\n", "    display_name: str\n"))
    refused = run()
    assert refused.returncode == 1
    assert "UserUpdated: user.display_name cannot be null any more" in refused.stderr
    assert "add another, optional, beside it" in refused.stderr
    # who alters the file as well is told by the history
    source.write_text(types)
    file = tmp_path / "events" / "schemas" / "UserUpdated.v1.json"
    file.write_bytes(written(changed(value_is_new)))
    subprocess.run([*git, "commit", "-qam", "altered"], cwd=tmp_path, check=True, capture_output=True)
    refused = run()
    assert refused.returncode == 1
    assert "UserUpdated: version 1 is not what commit" in refused.stderr


def test_writing_makes_new_versions_and_spares_published_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gate.write(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in FOLDER.iterdir()}
    assert published(tmp_path) == published()
    planted = {**bodies.BODIES, NAME: bodies.UserSnapshot}
    monkeypatch.setattr("events.contract.schemas.BODIES", planted)
    found = gate.write(tmp_path)
    assert any(f"{NAME}: changes may be missing now" in problem for problem in found)
    assert published(tmp_path)[NAME] == COMMITTED
    assert orjson.loads(written(generated(NAME)))["$id"] == "UserUpdated.v1.json"
