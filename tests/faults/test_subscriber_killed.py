"""kill -9 of a subscriber, again and again, while users change and records come twice: the table is exact."""

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest

from tests.databases import MakeSettings
from tests.processes import ROOT
from tests.published import Published
from tests.topics import records_of
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

KILLS = 50
SEED = 20261124
LIMIT = 7
PEOPLE = 60

Table = dict[str, tuple[int, bool]]


class Follower:
    def __init__(self, published: Published, path: Path) -> None:
        settings = published.settings
        self.popen = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.follower_process", str(path), settings.kafka_bootstrap_servers),
                *(settings.events_topic, settings.snapshot_topic, str(LIMIT)),
            ],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'subscriber'}"},
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def said(self) -> IO[str]:
        assert self.popen.stdout is not None
        return self.popen.stdout

    def wait_for_batches(self, count: int) -> None:
        for _ in range(count):
            assert self.said.readline(), f"the subscriber ended with {self.popen.wait(10)}"

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(10)
        self.said.close()


@pytest.fixture
def published(make_settings: MakeSettings) -> Published:
    return Published(make_settings(broker=True))


@pytest.fixture
def followers() -> Iterator[list[Follower]]:
    started: list[Follower] = []
    yield started
    for follower in started:
        if follower.popen.poll() is None:
            follower.kill()


def table(path: Path) -> Table:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        rows = connection.execute("SELECT id, version, deleted FROM users").fetchall()
    return {user_id: (version, bool(deleted)) for user_id, version, deleted in rows}


def write(published: Published, dice: random.Random) -> None:
    """Enough for some batches; some of it comes twice."""
    for _ in range(40):
        alive = [user.id for user in published.users.values() if user.deleted_at is None]
        match dice.random():
            case chance if chance < 0.15 or not alive:
                published.create()
            case chance if chance < 0.2:
                published.delete(dice.choice(alive))
            case chance if chance < 0.35:
                begin = dice.randrange(len(published.sent))
                published.repeat(published.sent[begin : begin + dice.randrange(1, 10)])
            case _:
                published.change(dice.choice(alive), display_name=str(dice.random()))
    published.flush()


def test_killed_fifty_times_it_has_everything_and_nothing_twice(
    published: Published, followers: list[Follower], tmp_path: Path
) -> None:
    dice = random.Random(SEED)  # noqa: S311 - not a secret
    path = tmp_path / "users.sqlite"
    published.create(PEOPLE)
    published.flush()
    for _ in range(KILLS):
        follower = Follower(published, path)
        followers.append(follower)
        # some die while they read what is there, some while it is being written, some right after their first batch
        write(published, dice)
        follower.wait_for_batches(dice.randrange(1, 5))
        follower.kill()
    followers.append(Follower(published, path))
    eventually(lambda: table(path) == published.versions, what="the table is the truth")
    with closing(sqlite3.connect(path)) as connection:
        [(users, applied, versions)] = connection.execute("SELECT count(*), sum(applied), sum(version) FROM users")
        twice = connection.execute("SELECT id, applied, version FROM users WHERE applied <> version").fetchall()
    assert twice == []
    assert len(records_of(published.settings, published.settings.events_topic)) > len(published.sent)
    assert users == len(published.users)
    assert applied == versions == sum(user.version for user in published.users.values())
