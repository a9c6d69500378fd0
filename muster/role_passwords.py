from collections.abc import Mapping
from pathlib import Path

from muster.failures import CannotRun

VARIABLES = {
    "muster_command": "COMMAND_DATABASE_PASSWORD",
    "muster_query": "QUERY_DATABASE_PASSWORD",
    "muster_projector": "PROJECTOR_DATABASE_PASSWORD",
}


def role_passwords_from(environment: Mapping[str, str]) -> dict[str, str]:
    """Give each role's password from its variable, or from the file that the variable with _FILE names.

    A role without either is left out. Raises CannotRun for both at once, for an empty one and for a file that
    cannot be read.
    """
    found: dict[str, str] = {}
    for role, variable in VARIABLES.items():
        file = environment.get(f"{variable}_FILE")
        password = environment.get(variable)
        if file is not None and password is not None:
            raise CannotRun(f"{variable} and {variable}_FILE are both set: unset one")
        if file is not None:
            try:
                password = Path(file).read_text().rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise CannotRun(f"{variable}_FILE: cannot read {file}: {error}") from None
        if password == "":
            raise CannotRun(f"{variable} is empty")
        if password is not None:
            found[role] = password
    return found
