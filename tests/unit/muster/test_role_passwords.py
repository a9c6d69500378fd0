from pathlib import Path

import pytest

from muster.failures import CannotRun
from muster.role_passwords import role_passwords_from


def test_a_password_comes_from_its_variable_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from a file\n")
    found = role_passwords_from({"COMMAND_DATABASE_PASSWORD": "plain", "QUERY_DATABASE_PASSWORD_FILE": str(file)})
    assert found == {"muster_command": "plain", "muster_query": "from a file"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"QUERY_DATABASE_PASSWORD": ""}, "QUERY_DATABASE_PASSWORD is empty"),
        ({"QUERY_DATABASE_PASSWORD_FILE": "/nowhere"}, "cannot read /nowhere"),
        ({"QUERY_DATABASE_PASSWORD": "a", "QUERY_DATABASE_PASSWORD_FILE": "/b"}, "both set"),
    ],
)
def test_a_password_that_cannot_be_meant_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(CannotRun, match=message):
        role_passwords_from(environment)
