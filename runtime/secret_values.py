"""Secrets from outside: told as NAME or as NAME_FILE, the path of a file. Placeholders are no secrets."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

# these may be told as NAME or as NAME_FILE, the path of a file that holds the value
SECRETS = (
    "database_url",
    "kek",
    "keks_known",
    "email_index_key",
    "email_index_keys_known",
    "first_admin_password",
    "kafka_sasl_password",
    "kafka_key_password",
)

PLACEHOLDERS = frozenset(
    {"admin", "changeit", "changeme", "default", "example", "muster", "password", "placeholder", "postgres"}
    | {"replaceme", "secret", "test", "todo"}
)


def secret_in(file: Path) -> str:
    """Read a secret without the end of its line; raises ValueError, which names the file and not what it holds."""
    try:
        secret = file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"cannot read {file}: it is not text in UTF-8") from None
    if not secret:
        raise ValueError(f"{file} is empty")
    return secret


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFile:
    """Where a secret is said to be; `beside_value` when the same source told the secret itself as well."""

    path: Path
    beside_value: bool


def with_files(told: Mapping[str, Any]) -> dict[str, Any]:
    """Put each NAME_FILE of one source in the place of its NAME, to be read only if no other source overrides it."""
    values = dict(told)
    for name in SECRETS:
        if (path := values.pop(f"{name}_file", None)) is not None:
            values[name] = SecretFile(path=Path(path), beside_value=values.get(name) is not None)
    return values


def database_password(database_url: SecretStr) -> str | None:
    """Give the password in the URL, if it has one; raises ValueError for what libpq cannot parse."""
    try:
        password = conninfo_to_dict(database_url.get_secret_value()).get("password")
    except psycopg.ProgrammingError:
        # its message repeats what it could not parse
        raise ValueError(
            "DATABASE_URL is no connection string of PostgreSQL: write postgresql://user:password@host:port/database,"
            " percent-encoding what means something else in a URL"
        ) from None
    return None if password is None else str(password)


def is_placeholder(password: str) -> bool:
    word = "".join(character for character in password.casefold() if character not in "-_ .<>")
    return word in PLACEHOLDERS or set(word) <= {"x"}
