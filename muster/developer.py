"""The administrator of the development stack, and the token that it hands to its developer."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from muster.login import LoginFailed, WrongPassword, log_in
from runtime.secret_values import secret_in

MADE_WITHIN = 60


def developers_token(command_url: str, environment: Mapping[str, str], *, say: Callable[[str], None]) -> str | None:
    """Log in the administrator whom the command API's environment names, and make one where an older home has none.

    None, and a line that says what to do, when that cannot be.
    """
    email, file = environment["FIRST_ADMIN_EMAIL"], environment["FIRST_ADMIN_PASSWORD_FILE"]
    try:
        password = secret_in(Path(file))
        try:
            return log_in(command_url, email, password)
        except WrongPassword:
            _make(email, file, environment)
            return log_in(command_url, email, password)
    except (LoginFailed, ValueError) as error:
        say(
            f"there is no token: {email} cannot log in with what {file} holds ({error}); put the right password there,"
            " or make another administrator: .venv/bin/muster admin create --email YOU@example.com"
        )
        return None


def _make(email: str, password_file: str, environment: Mapping[str, str]) -> None:
    """Raises LoginFailed. A process of its own: a Ctrl-C in the midst of it ends this one as it should."""
    command = ["admin", "create", "--email", email, "--password-file", password_file]
    try:
        made = subprocess.run(
            [sys.executable, "-P", "-m", "muster", *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=MADE_WITHIN,
        )
    except subprocess.TimeoutExpired:
        raise LoginFailed(f"no administrator was made within {MADE_WITHIN} s") from None
    if made.returncode:
        last_words = (made.stderr.strip().splitlines() or ["no administrator was made"])[-1]
        raise LoginFailed(last_words.removeprefix("muster: "))
