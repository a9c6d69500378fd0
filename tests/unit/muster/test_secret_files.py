import stat
from pathlib import Path

import psycopg.conninfo
import pytest
from pydantic import SecretStr

from events.keyring import KEY_BYTES, read_key
from identity.password_rules import check_rules
from migrations.apply import ROLES
from muster.secret_files import LOGINS, make_secret_files
from runtime.secret_values import secret_in
from runtime.settings import settings_from_environment


def key_in(file: Path) -> bytes:
    return read_key(SecretStr(secret_in(file)), variable="KEK", production=True)


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_every_key_login_and_the_first_administrator_get_their_files(tmp_path: Path) -> None:
    made = make_secret_files(tmp_path)
    assert {str(file.relative_to(tmp_path)) for file in made} == {
        "keys/kek",
        "keys/email-index-key",
        "muster_admin/password",
        *(f"{login}/{name}" for login in ("muster_owner", *ROLES) for name in ("password", "pgpass")),
    }
    assert set(contents(tmp_path)) == {str(file.relative_to(tmp_path)) for file in made}


def test_the_keys_are_such_as_the_processes_read(tmp_path: Path) -> None:
    make_secret_files(tmp_path)
    keys = {key_in(tmp_path / "keys" / name) for name in ("kek", "email-index-key")}
    assert [len(key) for key in keys] == [KEY_BYTES, KEY_BYTES]


@pytest.mark.parametrize("login", LOGINS)
def test_the_pgpass_of_a_login_holds_its_password(tmp_path: Path, login: str) -> None:
    make_secret_files(tmp_path)
    password = (tmp_path / login / "password").read_text().strip()
    assert len(password) >= 32
    assert (tmp_path / login / "pgpass").read_text() == f"*:*:*:{login}:{password}\n"
    # as docker-compose.yml names it
    url = f"postgresql://{login}@postgres/muster?passfile={tmp_path}/{login}/pgpass"
    assert psycopg.conninfo.conninfo_to_dict(url)["passfile"] == f"{tmp_path}/{login}/pgpass"


def test_the_first_administrators_password_is_one_that_may_be_chosen_even_in_production(tmp_path: Path) -> None:
    make_secret_files(tmp_path)
    settings = settings_from_environment(
        muster_mode="production",
        database_url="postgresql://muster_command@127.0.0.1/muster",
        first_admin_email="admin@example.com",
        first_admin_password_file=str(tmp_path / "muster_admin" / "password"),
    )
    assert settings.first_admin_password is not None
    password = settings.first_admin_password.get_secret_value()
    assert len(password) >= 32
    check_rules(password, min_length=settings.password_min_length, email=settings.first_admin_email)


def test_no_two_passwords_are_alike(tmp_path: Path) -> None:
    make_secret_files(tmp_path)
    passwords = [file.read_text() for file in tmp_path.glob("*/password")]
    assert len(set(passwords)) == len(passwords) == len(LOGINS) + 1


def test_nobody_else_can_read_a_secret(tmp_path: Path) -> None:
    assert {stat.S_IMODE(file.stat().st_mode) for file in make_secret_files(tmp_path)} == {0o400}


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    make_secret_files(tmp_path)
    before = contents(tmp_path)
    assert make_secret_files(tmp_path) == []
    assert contents(tmp_path) == before


def test_what_is_missing_is_made_beside_it_and_fits(tmp_path: Path) -> None:
    make_secret_files(tmp_path)
    before = contents(tmp_path)
    lost = tmp_path / "muster_query" / "pgpass"
    lost.unlink()
    assert make_secret_files(tmp_path) == [lost]
    assert contents(tmp_path) == before


def test_a_file_whose_writing_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / ".kek.unfinished").write_text("half")
    make_secret_files(tmp_path)
    assert len(key_in(tmp_path / "keys" / "kek")) == KEY_BYTES
