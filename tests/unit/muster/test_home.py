import base64
import fcntl
from pathlib import Path

import pytest

from muster.failures import CannotRun
from muster.home import Home, home_at


def test_a_key_is_32_bytes_made_once(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.held():
        key = home.key_file("kek").read_text()
        assert len(base64.b64decode(key)) == 32
        assert home.key_file("kek").read_text() == key
        assert home.secret("token") == home.secret("token") != home.secret("another")
        assert home.key_file("kek").stat().st_mode & 0o777 == 0o600


def test_a_home_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.held(), pytest.raises(CannotRun, match="already runs"), home.held():
        pass
    with home.held():
        pass


def test_children_of_a_killed_supervisor_are_waited_for(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.held():
        pass
    with (home.folder / "children.lock").open() as child:
        fcntl.flock(child, fcntl.LOCK_EX)
        with pytest.raises(CannotRun, match="processes of an earlier stack"), home.held(wait=0.1):
            pass


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    tmp_path.chmod(0o755)
    home = Home(tmp_path)
    with pytest.raises(CannotRun, match=r"holds other things \(thesis.txt\)"), home.held():
        pass
    with pytest.raises(CannotRun, match="holds other things"):
        home.drop()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_dropping_a_home_removes_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.held():
        home.log_file("postgres").write_text("words")
        home.secret("token")
    home.drop()
    assert not home.folder.exists()
    home.drop()


def test_a_new_run_keeps_the_last_ones_log_beside_its_own(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.held():
        home.log_file("broker").write_text("before")
        assert home.log_file("broker").read_text() == ""
        assert (home.logs / "broker.log.1").read_text() == "before"


def test_the_home_is_in_the_repository_unless_it_is_named(tmp_path: Path) -> None:
    assert home_at(str(tmp_path / "mine")).folder == tmp_path / "mine"
    assert home_at(None).folder == Path(__file__).parents[3] / ".muster"
    assert home_at("").folder == home_at(None).folder


def test_a_key_that_data_depends_on_is_not_made_anew(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.held():
        key = home.key_file("kek")
        (home.folder / "postgres").mkdir()
        assert home.key_file("kek") == key
        key.unlink()
        with pytest.raises(CannotRun, match=r"secrets/kek is missing.*put it back, or delete them with `muster reset`"):
            home.key_file("kek")
        assert not key.exists()
        # a password can be another at each start
        home.secret("muster_owner")
