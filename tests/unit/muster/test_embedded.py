"""The embedded servers are real ones: what they promise is tried on them."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from muster.embedded.broker import EmbeddedBroker, wait_for_metadata
from muster.embedded.postgres import EmbeddedPostgres
from muster.failures import CannotRun
from tests.waiting import eventually


def count(server: EmbeddedPostgres) -> int:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (one int)")
        connection.execute("INSERT INTO kept VALUES (1)")
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    return row[0] if row else 0


def test_postgres_keeps_its_data_through_a_stop_and_a_kill(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path) as server:
        assert count(server) == 1
    killed = EmbeddedPostgres(tmp_path)
    process = killed.start()
    assert count(killed) == 2
    process.kill()
    process.wait()
    with EmbeddedPostgres(tmp_path) as server:
        assert count(server) == 3


def test_postgres_asks_for_its_password(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path, throwaway=True) as server:
        assert (tmp_path / "password").stat().st_mode & 0o777 == 0o600
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url(password="guessed"))


def test_postgres_leaves_the_folders_above_it_as_they_are(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedPostgres(closed / "postgres", throwaway=True) as server:
        assert count(server) == 1
        assert closed.stat().st_mode & 0o777 == 0o700
        assert closed.stat().st_uid == os.geteuid()
        assert (closed / "postgres").stat().st_mode & 0o777 == 0o700


def test_what_an_interrupted_initdb_left_is_not_taken_for_a_database(tmp_path: Path) -> None:
    (tmp_path / "data.unfinished").mkdir()
    (tmp_path / "data.unfinished" / "PG_VERSION").write_text("18")
    with EmbeddedPostgres(tmp_path, throwaway=True) as server:
        assert count(server) == 1


def test_a_pid_file_that_names_a_stranger_is_no_obstacle(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path, throwaway=True) as server:
        lock = (tmp_path / "data" / "postmaster.pid").read_text().splitlines()
        port = server.port
    owner = (tmp_path / "data").stat()
    stranger = subprocess.Popen(
        ["/bin/sleep", "60"], cwd="/", user=owner.st_uid if os.geteuid() == 0 else None, start_new_session=True
    )
    try:
        pid_file = tmp_path / "data" / "postmaster.pid"
        pid_file.write_text("\n".join([str(stranger.pid), *lock[1:]]) + "\n")
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        with EmbeddedPostgres(tmp_path, port=port, throwaway=True) as again:
            assert count(again) == 1
    finally:
        stranger.kill()
        stranger.wait()


def test_postgres_that_cannot_start_says_why(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "one", throwaway=True) as first:
        second = EmbeddedPostgres(tmp_path / "two", port=first.port, throwaway=True)
        with pytest.raises(CannotRun, match=r"ended at once: .*could not create any TCP/IP sockets"):
            second.start(timeout=10)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="cannot in CI: there is no setpriv on this system")
def test_the_servers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import pathlib, signal, sys
from muster.embedded.broker import EmbeddedBroker
from muster.embedded.postgres import EmbeddedPostgres
folder = pathlib.Path({str(tmp_path)!r})
servers = [EmbeddedPostgres(folder / "postgres", throwaway=True), EmbeddedBroker(folder / "broker")]
print(*(server.start().pid for server in servers), flush=True)
signal.pause()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as output:
        pids = [int(word) for word in output.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    eventually(lambda: not any(runs(pid) for pid in pids), what="both servers are gone")


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_the_broker_answers_with_metadata_and_stops_when_told(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    process = broker.start()
    wait_for_metadata(broker.bootstrap_servers, timeout=5)
    broker.stop()
    assert process.returncode is not None
    with pytest.raises(CannotRun, match="did not listen"):
        wait_for_metadata(broker.bootstrap_servers, timeout=0.1)


def test_a_broker_whose_port_is_taken_says_why(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "one") as first:
        second = EmbeddedBroker(tmp_path / "two", port=first.port)
        with pytest.raises(CannotRun, match=f"cannot listen on port {first.port}"):
            second.start()


def test_a_url_is_for_the_database_and_login_that_are_named(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path, port=1, password="superuser's")
    url = urlsplit(server.url("muster", user="muster_owner", password="a/b@c:d"))
    assert (url.username, url.port, url.path) == ("muster_owner", 1, "/muster")
    assert url.password == "a%2Fb%40c%3Ad"
    assert "superuser%27s" in server.url()


def test_signals_of_the_terminal_do_not_reach_the_servers(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path, throwaway=True) as server:
        assert server.process is not None
        assert os.getpgid(server.process.pid) != os.getpgid(0)
        assert server.program().stop_signal is signal.SIGINT
