"""What every command promises to scripts: one envelope on stdout, whatever comes of it."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer

from muster import answers
from muster.cli import app

# they end when they are told to
LONG_RUNNING = {"run", "relay"}
PAGE = (Path(__file__).parents[2] / "docs" / "operate.md").read_text()


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command has a process to itself and logs to its stderr: here others come after it."""
    root, found = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    aiokafka = logging.getLogger("aiokafka").level
    yield
    structlog.configure(**found)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("aiokafka").setLevel(aiokafka)


def commands_of(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - typer names no type for it
    """Every command that does something, by its name without `muster`."""
    children: dict[str, Any] = getattr(command, "commands", {})
    if not children:
        yield name, command
    for child, found in children.items():
        yield from commands_of(found, f"{name} {child}".strip())


COMMANDS = dict(commands_of(typer.main.get_command(app)))


def test_every_command_that_ends_by_itself_takes_json() -> None:
    assert len(COMMANDS) > 20
    takes = {name: any("--json" in one.opts for one in command.params) for name, command in COMMANDS.items()}
    assert {name for name, json_too in takes.items() if not json_too} == LONG_RUNNING


def test_every_command_is_in_the_table() -> None:
    table = PAGE[PAGE.index("\n| command |") :].split("\n\n")[0]
    rows = set(re.findall(r"^\| `([a-z -]+)` \|", table, flags=re.MULTILINE))
    assert rows == COMMANDS.keys()


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - LONG_RUNNING))
def test_what_is_wrong_with_the_options_is_in_the_envelope(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert answers.run(app, [*name.split(), "--json", "--no-such-option"]) == 2
    told = capsys.readouterr()
    envelope = json.loads(told.out)
    assert (envelope["command"], envelope["ok"], envelope["exit_code"], envelope["result"]) == (name, False, 2, None)
    [error] = envelope["errors"]
    assert error == {"code": "usage", "detail": "No such option: --no-such-option"}
    assert "--no-such-option" in told.err


@pytest.mark.parametrize(
    ("arguments", "command"), [(["no-such-command", "--json"], None), (["keys", "no-such", "--json"], "keys")]
)
def test_so_is_a_command_that_there_is_not(
    arguments: list[str], command: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answers.run(app, arguments) == 2
    envelope = json.loads(capsys.readouterr().out)
    assert (envelope["command"], envelope["errors"][0]["code"]) == (command, "usage")


def test_help_is_help() -> None:
    assert answers.run(app, ["keys", "list", "--json", "--help"]) == 0


def test_behind_two_dashes_it_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert answers.run(app, ["keys", "revoke", "--nothing", "--", "--json"]) == 2
    assert capsys.readouterr().out == ""


def trouble() -> answers.Answer:
    raise KeyError("x")


def interrupted() -> answers.Answer:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "status", "code"), [(trouble, 2, "internal_error"), (interrupted, 130, "interrupted")]
)
def test_a_fault_of_its_own_is_no_finding(
    command: Any,  # noqa: ANN401 - a function
    status: int,
    code: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = typer.Typer()
    made.command("it")(answers.answering(command))
    made.command("other")(answers.answering(command))
    assert answers.run(made, ["it", "--json"]) == status
    envelope = json.loads(capsys.readouterr().out)
    assert (envelope["command"], envelope["errors"][0]["code"]) == ("it", code)
