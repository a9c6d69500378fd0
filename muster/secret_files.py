"""The secrets of a deployment that was given none: `python -m muster.secret_files FOLDER` makes what is missing.

FOLDER/keys/kek and FOLDER/keys/email-index-key hold 32 random bytes in base64. FOLDER/LOGIN holds each database
login's `password`, and the same as `pgpass`, which PostgreSQL's own clients read when a URL ends in ?passfile=...
FOLDER/muster_admin/password is the first administrator's, who logs in to Muster and not to the database.
"""

import base64
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from migrations.apply import ROLES

LOGINS = ("muster_owner", *ROLES)
KEYS = ("kek", "email-index-key")
FIRST_ADMIN = "muster_admin"


def make_secret_files(folder: Path) -> list[Path]:
    """Make the files that are missing, readable by their owner alone; gives those that were made."""
    made: list[Path] = []
    for key in KEYS:
        made += _make(folder / "keys" / key, lambda: base64.b64encode(secrets.token_bytes(32)).decode())
    made += _make(folder / FIRST_ADMIN / "password", _password)
    for login in LOGINS:
        password = folder / login / "password"
        made += _make(password, _password)
        # neither part can hold the colon or backslash that a pgpass line would have to escape
        line = f"*:*:*:{login}:{password.read_text().strip()}"
        made += _make(folder / login / "pgpass", lambda line=line: line)
    return made


def _password() -> str:
    return secrets.token_urlsafe(32)


def _make(file: Path, content: Callable[[], str]) -> list[Path]:
    if file.exists():
        return []
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # durable before it bears its name: data may depend on it from then on
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as output:
        output.write(f"{content()}\n")
        output.flush()
        os.fsync(output.fileno())
    unfinished.rename(file)
    return [file]


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 - the program and the folder
        raise SystemExit("usage: python -m muster.secret_files FOLDER")
    for made in make_secret_files(Path(sys.argv[1])):
        print(f"made {made}")
