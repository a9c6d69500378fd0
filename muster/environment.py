from collections.abc import Mapping

from muster.database import ROLES, as_role
from muster.home import Home


def process_environment(
    home: Home, process: str, *, database_url: str, kafka_bootstrap_servers: str
) -> Mapping[str, str]:
    """Give the settings of one process of the stack in `home`, which logs in as its own role.

    `database_url` is anyone's; only its server and database are used.
    """
    role = ROLES[process]
    return {
        "DATABASE_URL": as_role(database_url, role, home.secret(role)),
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap_servers,
        "KEK_FILE": str(home.key_file("kek")),
        "EMAIL_INDEX_KEY_FILE": str(home.key_file("email-index-key")),
        "DEVELOPMENT_TOKEN": home.secret("development-token"),
    }
