import stat
from pathlib import Path

import psycopg.conninfo
import pytest

from events.keyring import KEY_BYTES, read_key
from migrations.apply import ROLES
from muster.secret_files import LOGINS, make_secret_files


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_every_key_and_login_gets_its_files(tmp_path: Path) -> None:
    made = make_secret_files(tmp_path)
    assert {str(file.relative_to(tmp_path)) for file in made} == {
        "keys/kek",
        "keys/email-index-key",
        *(f"{login}/{name}" for login in ("muster_owner", *ROLES) for name in ("password", "pgpass")),
    }
    assert set(contents(tmp_path)) == {str(file.relative_to(tmp_path)) for file in made}


def test_the_keys_are_such_as_the_processes_read(tmp_path: Path) -> None:
    make_secret_files(tmp_path)
    keys = {read_key(tmp_path / "keys" / name, variable="X") for name in ("kek", "email-index-key")}
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
    assert len(read_key(tmp_path / "keys" / "kek", variable="KEK_FILE")) == KEY_BYTES
