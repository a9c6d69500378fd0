"""What a command answers: words for people, or with --json one envelope; and what it exits with.

stdout has nothing else: progress, logs and what went wrong are on stderr.
"""

import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, ParamSpec

import orjson
import psycopg
import typer
from sqlalchemy.exc import DBAPIError

from muster.audit_log import log_to_stderr
from muster.failures import CannotRun, Refused
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.settings import BadSettings

if TYPE_CHECKING:
    from rich.console import RenderableType

P = ParamSpec("P")

DONE: Final = 0
FOUND: Final = 1
FAILED: Final = 2
INTERRUPTED: Final = 130

JSON: Final = "--json"
AS_JSON: Final[ContextVar[bool]] = ContextVar("AS_JSON", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong: a code for programs, and one line for people."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a command: for programs, and as `words` for people, which are made only when they are read.

    A command with findings exits with 1.
    """

    result: Mapping[str, Any]
    words: "Iterable[RenderableType]" = ()
    findings: Sequence[Finding] = ()


class Parts:
    """A part of the result that is found bit by bit: people are told at once, the envelope has all of them."""

    def __init__(self) -> None:
        self.documents: list[Mapping[str, Any]] = []

    def add(self, document: Mapping[str, Any], words: str) -> None:
        if AS_JSON.get():
            self.documents.append(document)
        else:
            say(words)


@dataclass(slots=True, kw_only=True)
class Call:
    """One call of the command line; `command` is None when none was found."""

    as_json: bool
    command: str | None = None
    answer: Answer | None = None
    errors: Sequence[Finding] = field(default_factory=list[Finding])
    status: int = DONE

    def failed(self, status: int, code: str, detail: str) -> None:
        self.status, self.errors = status, [Finding(code=code, detail=detail)]

    def answered(self, answer: Answer) -> None:
        self.answer, self.errors = answer, answer.findings
        self.status = FOUND if answer.findings else DONE


def say(words: str) -> None:
    """A line for people, now; with --json on stderr."""
    try:
        print(words, flush=True)
    except BrokenPipeError:
        _go_on_unread()


def answering(command: Callable[P, Answer]) -> Callable[..., None]:
    """Make a command that typer can register, with --json, of a function that gives an answer."""

    @wraps(command)
    def call(context: typer.Context, *, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - the command's own
        if context.invoked_subcommand is not None:
            # of a group: the command of it that was named answers
            return
        this: Call = context.obj
        this.command, this.as_json = _name(context), as_json
        AS_JSON.set(as_json)
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            log_to_stderr()
            # they are the command's own, by typer
            this.answered(command(**options))  # pyright: ignore[reportCallIssue]

    own = inspect.signature(command, eval_str=True)
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    wanted = Annotated[bool, typer.Option(JSON, help="One envelope on stdout, whatever comes of it.")]
    option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, annotation=wanted, default=False)
    signature = own.replace(parameters=[context, *own.parameters.values(), option], return_annotation=None)
    call.__signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]
    call.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
    return call


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run one command and tell what came of it; gives what the process exits with."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    call = Call(as_json=JSON in options)
    try:
        exited = app(arguments, prog_name="muster", obj=call, standalone_mode=False)
        if exited is not None:
            call.status = exited
    except typer.TyperException as error:
        call.command = _show_usage(error)
        call.failed(FAILED, "usage", _line(error.format_message()))
        return _told(call, on_stderr=False)
    except (typer.Abort, KeyboardInterrupt):
        call.status = INTERRUPTED
    except Refused as error:
        call.failed(FOUND, error.code, str(error))
    except CannotRun as error:
        call.failed(FAILED, error.code, _line(error))
    except (BadSettings, Unavailable, OutcomeUnknown) as error:
        call.failed(FAILED, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower(), _line(error))
    except (psycopg.Error, DBAPIError) as error:
        told = error.orig if isinstance(error, DBAPIError) else error
        call.failed(FAILED, "database", f"the database: {_line(told)}")
    except Exception as error:  # noqa: BLE001 - the outermost: 1 would say that something was found
        traceback.print_exc()
        call.failed(FAILED, "internal_error", f"a fault of muster's own: {type(error).__name__}")
    if call.status == INTERRUPTED:
        call.failed(INTERRUPTED, "interrupted", "it was interrupted")
        return _told(call, on_stderr=False)
    return _told(call)


def _told(call: Call, *, on_stderr: bool = True) -> int:
    try:
        if call.as_json:
            # neither, of --help
            if call.answer is not None or call.errors:
                _write_envelope(call)
        elif call.answer is not None:
            _show(call.answer)
        sys.stdout.flush()
    except BrokenPipeError:
        _go_on_unread()
    if on_stderr and call.errors:
        print(f"muster: {'; '.join(error.detail for error in call.errors)}", file=sys.stderr)
    return call.status


def _go_on_unread() -> None:
    """Whoever read along has left: that ends no work."""
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - it is stdout until the process ends


def _write_envelope(call: Call) -> None:
    envelope = {
        "command": call.command,
        "ok": call.status == DONE,
        "exit_code": call.status,
        "result": None if call.answer is None else call.answer.result,
        "errors": [asdict(error) for error in call.errors],
    }
    print(orjson.dumps(envelope, default=str, option=orjson.OPT_UTC_Z).decode())


def _show(answer: Answer) -> None:
    # what it alone needs: the others start faster without it
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    # names and problems are not ours to read colours from
    console = Console(markup=False, highlight=False)
    for words in answer.words:
        console.print(words, soft_wrap=isinstance(words, (str, Text)))


def _show_usage(error: typer.TyperException) -> str | None:
    """Show what is wrong as typer does; gives the command, if it is known."""
    from typer import rich_utils  # noqa: PLC0415

    # what it is typed as is private
    shown: Any = error
    rich_utils.rich_format_error(shown)
    return None if shown.ctx is None else _name(shown.ctx)


def _name(context: typer.Context) -> str | None:
    return context.command_path.partition(" ")[2] or None


def _line(error: object) -> str:
    return " ".join(str(error).split())
