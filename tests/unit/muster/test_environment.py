from pathlib import Path

import pytest

from muster.environment import ADMIN_EMAIL, process_environment, secret_from, without_secrets
from muster.failures import CannotRun
from muster.home import Home
from runtime.settings import Settings


def environment_of(home: Home, process: str) -> dict[str, str]:
    with home.held():
        return dict(
            process_environment(
                home, process, database_url="postgresql://owner:x@127.0.0.1:5432/muster", kafka_bootstrap_servers="x:1"
            )
        )


def test_the_command_api_alone_is_told_who_the_first_administrator_is(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    told = environment_of(home, "command_api")
    assert told["FIRST_ADMIN_EMAIL"] == ADMIN_EMAIL
    assert "FIRST_ADMIN_PASSWORD_FILE" in told
    for process in ("query_api", "projector"):
        assert not [name for name in environment_of(home, process) if name.startswith("FIRST_ADMIN")]


def test_the_first_administrators_password_is_as_long_as_any_deployment_may_ask_for(tmp_path: Path) -> None:
    told = environment_of(Home(tmp_path / "home"), "command_api")
    longest = next(bound.le for bound in Settings.model_fields["password_min_length"].metadata if hasattr(bound, "le"))
    assert len(Path(told["FIRST_ADMIN_PASSWORD_FILE"]).read_text().strip()) >= longest


def test_the_secrets_of_another_deployment_are_left_out_in_either_form() -> None:
    inherited = {
        "KEK": "a",
        "EMAIL_INDEX_KEY_FILE": "/b",
        "database_url": "c",
        "FIRST_ADMIN_EMAIL": "d@example.com",
        "FIRST_ADMIN_PASSWORD_FILE": "/e",
        "KEKS": "f",
        "PATH": "/bin",
    }
    assert without_secrets(inherited) == {"KEKS": "f", "PATH": "/bin"}


def test_a_secret_comes_from_its_variable_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from a file\n")
    assert secret_from({"KEK": "plain"}, "KEK") == "plain"
    assert secret_from({"KEK_FILE": str(file)}, "KEK") == "from a file"
    assert secret_from({"PATH": "/bin"}, "KEK") is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"KEK": ""}, "^KEK is empty$"),
        ({"KEK_FILE": "/nowhere"}, "^KEK_FILE: cannot read /nowhere"),
        ({"KEK": "a", "KEK_FILE": "/b"}, "^KEK and KEK_FILE are both set: unset one$"),
    ],
)
def test_a_secret_that_cannot_be_meant_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(CannotRun, match=message):
        secret_from(environment, "KEK")
