"""How a password reaches a command: from a file, or typed unseen, or piped in; never as an argument."""

import sys
from pathlib import Path

import typer

from muster.failures import CannotRun
from runtime.secret_values import secret_in


def entered_password(file: Path | None, *, twice: bool) -> str:
    """Give the password in the file, else what is typed on a terminal (`twice` to be sure), else what stdin holds."""
    if file is not None:
        try:
            return secret_in(file)
        except ValueError as error:
            raise CannotRun(f"--password-file: {error}") from None
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=twice, err=True))
    try:
        password = sys.stdin.read().rstrip("\r\n")
    except UnicodeDecodeError:
        raise CannotRun("stdin holds no password: it is not text") from None
    if not password:
        raise CannotRun("stdin holds no password: pipe one in, or name a file that holds it: --password-file FILE")
    return password
