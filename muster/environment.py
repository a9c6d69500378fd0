from collections.abc import Mapping
from pathlib import Path

from muster.database import ROLES, as_role
from muster.failures import CannotRun
from muster.home import Home
from runtime.broker_settings import CONNECTION
from runtime.secret_values import SECRETS, secret_in

# of the development stack
ADMIN_EMAIL = "admin@example.com"
KNOWN = {"KEKS_KNOWN_FILE": "keks-known", "EMAIL_INDEX_KEYS_KNOWN_FILE": "email-index-keys-known"}


def process_environment(
    home: Home, process: str, *, database_url: str, kafka_bootstrap_servers: str
) -> Mapping[str, str]:
    """Give the settings of one process of the stack in `home`, which logs in as its own role.

    `database_url` is anyone's; only its server and database are used.
    """
    role = ROLES[process]
    settings = {
        "DATABASE_URL": as_role(database_url, role, home.secret(role)),
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap_servers,
        "KEK_FILE": str(home.key_file("kek")),
        "EMAIL_INDEX_KEY_FILE": str(home.key_file("email-index-key")),
    }
    for variable, name in KNOWN.items():
        # there is one only while somebody tries how keys are rotated
        if (file := home.folder / "secrets" / name).exists():
            settings[variable] = str(file)
    if process == "command_api":
        settings |= {
            "FIRST_ADMIN_EMAIL": ADMIN_EMAIL,
            "FIRST_ADMIN_PASSWORD_FILE": str(home.secret_file("admin-password")),
        }
    return settings


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out the secrets, in either form, and the brokers' login, of whatever deployment it describes."""
    secrets = {name.upper() for name in SECRETS} | {"FIRST_ADMIN_EMAIL"}
    connection = {name.upper() for name in CONNECTION}
    return {
        name: value
        for name, value in environment.items()
        if name.upper().removesuffix("_FILE") not in secrets and name.upper() not in connection
    }


def secret_from(environment: Mapping[str, str], variable: str) -> str | None:
    """Give a secret from its variable, or from the file that the variable with _FILE names; None without either.

    Raises CannotRun for both at once, for an empty one and for a file that cannot be read.
    """
    file = environment.get(f"{variable}_FILE")
    secret = environment.get(variable)
    if file is not None and secret is not None:
        raise CannotRun(f"{variable} and {variable}_FILE are both set: unset one")
    if file is not None:
        try:
            return secret_in(Path(file))
        except ValueError as error:
            raise CannotRun(f"{variable}_FILE: {error}") from None
    if secret == "":
        raise CannotRun(f"{variable} is empty")
    return secret
