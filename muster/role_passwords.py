from collections.abc import Mapping

from muster.environment import secret_from

VARIABLES = {
    "muster_command": "COMMAND_DATABASE_PASSWORD",
    "muster_query": "QUERY_DATABASE_PASSWORD",
    "muster_projector": "PROJECTOR_DATABASE_PASSWORD",
}


def role_passwords_from(environment: Mapping[str, str]) -> dict[str, str]:
    """Give each role's password that is told; raises CannotRun for one that cannot be meant."""
    found = {role: secret_from(environment, variable) for role, variable in VARIABLES.items()}
    return {role: password for role, password in found.items() if password is not None}
