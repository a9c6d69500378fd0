"""What a long history costs: one user as of a moment with 100,000 versions beside one with 10, in interleaved rounds.

    python benchmarks/history.py [--quick] [--versions N] [--json FILE]

Both are in one log, among `--users` others, with the same number of events of others before and after them.
"""

import argparse
import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import orjson
import psycopg
from connection import request_template
from figures import Findings, surroundings
from load import Load
from measuring import measured_load
from run import INTERRUPTED, add_common_options, parsed, run_rounds, say, tell
from seed import begin_topics, project_log, user_numbered
from stack import Prepared, Stack, running_stack

from events.keyring import open_keyring
from events.recording import Actor, Metadata, row_of
from events.user import EventId, User, UserCreated, UserEvent, UserUpdated, changes_between
from muster.administrators import create_administrator
from muster.failures import CannotRun
from muster.seeding import seed_log
from muster.supervisor import StopRequested
from runtime.ids import new_id
from runtime.settings import Settings

CONNECTIONS = 8
FEW = 10
BATCH = 2_000
METADATA = Metadata(
    actor=Actor(subject="benchmark", kind="operator"), request_id="r", correlation_id="c", causation_id="c"
)
INSERT = """
INSERT INTO log.events (position, recorded_at, user_id, version, type, schema, event_id, data, sealed, metadata)
SELECT h.position + r.ordinal, clock_timestamp(), r.user_id, r.version, r.type, r.schema, r.event_id, r.data, r.sealed,
    r.metadata
FROM log.head h, ROWS FROM (json_to_recordset(%s::json) AS (
    user_id uuid, version integer, type text, schema smallint, event_id uuid, data jsonb, sealed bytea, metadata jsonb
)) WITH ORDINALITY AS r (user_id, version, type, schema, event_id, data, sealed, metadata, ordinal)
"""
ADVANCE = "UPDATE log.head SET position = position + %s, recorded_at = clock_timestamp()"
KEY = "INSERT INTO log.user_keys (user_id, wrapped, kek_id) VALUES (%s, %s, %s)"
MIDDLE = "SELECT recorded_at, position FROM log.events WHERE user_id = %s AND version = %s"


def seed_versions(database_url: str, settings: Settings, number: int, versions: int) -> User:
    """Append a user and what became of them, as the log's owner; gives the newest state."""
    keyring = open_keyring(settings)
    user = user_numbered(number, new_id(), datetime.now(UTC))
    wrapped: bytes | None = None
    before: User | None = None
    with psycopg.connect(database_url) as connection:
        for first in range(1, versions + 1, BATCH):
            rows: list[dict[str, object]] = []
            for version in range(first, min(first + BATCH, versions + 1)):
                after = replace(
                    user,
                    version=version,
                    display_name=f"Version {version}",
                    updated_at=user.created_at + timedelta(microseconds=version),
                )
                kind = UserCreated if before is None else UserUpdated
                event: UserEvent = kind(id=EventId(new_id()), user=after, changes=changes_between(before, after))
                row = row_of(event, METADATA, keyring, wrapped)
                if wrapped is None:
                    wrapped = bytes.fromhex(row["wrapped"].removeprefix("\\x"))
                    connection.execute(KEY, (user.id, wrapped, keyring.kek_id))
                rows.append({"user_id": str(user.id), "version": version, **row})
                before = after
            connection.execute(INSERT, (orjson.dumps(rows).decode(),))
            connection.execute(ADVANCE, (len(rows),))
            connection.commit()
    assert before is not None
    return before


class LongHistory:
    def __init__(self, stack: Stack, users: dict[int, User], options: argparse.Namespace, findings: Findings) -> None:
        self._stack = stack
        self._users = users
        self._seconds: float = options.seconds
        self._findings = findings
        self._paths: dict[str, str] = {}

    def prepare(self) -> None:
        with psycopg.connect(self._stack.database_url) as connection:
            for versions, user in self._users.items():
                row = connection.execute(MIDDLE, (user.id, versions // 2)).fetchone()
                assert row is not None
                as_of = row[0].astimezone(UTC).isoformat().replace("+00:00", "Z")
                self._paths |= {
                    named("as_of", versions): f"/users/{user.id}?as_of={as_of}",
                    named("at_position", versions): f"/users/{user.id}?at_position={row[1]}",
                    named("version", versions): f"/users/{user.id}?version={versions // 2}",
                    named("newest page of history", versions): f"/users/{user.id}/history?order=newest&limit=10",
                    named("record of today", versions): f"/users/{user.id}",
                }

    def measurements(self) -> list[Callable[[], None]]:
        # each question of the one and then of the other, so that both meet the same machine
        names = [named(what, versions) for what in QUESTIONS for versions in self._users]
        return [partial(self._ask, name) for name in names]

    def name_ratios(self) -> None:
        few, many = self._users
        self._findings.ratios += [(named(what, few), named(what, many)) for what in QUESTIONS]

    def _ask(self, name: str) -> None:
        load = Load(
            port=self._stack.ports["query_api"],
            template=request_template("GET", self._paths[name].replace("%", "%%"), headers=self._stack.authorization),
            expected=200,
            connections=CONNECTIONS,
            seconds=self._seconds,
            warm_up=self._seconds / 10,
        )
        self._findings.add(name, measured_load(self._stack, load))


QUESTIONS = ("as_of", "at_position", "version", "newest page of history", "record of today")


def named(what: str, versions: int) -> str:
    return f"{what}, {versions:,} versions"


def compare(options: argparse.Namespace, settings: dict[str, object]) -> None:
    users: dict[int, User] = {}

    def fill(prepared: Prepared) -> None:
        """The administrator first, whom a command API makes only in an empty log."""
        command = prepared.settings["command_api"]
        assert command.first_admin_email is not None
        assert command.first_admin_password is not None
        password = command.first_admin_password.get_secret_value()
        asyncio.run(
            create_administrator(
                command, email=command.first_admin_email, password=password, display_name=None, operator="benchmark"
            )
        )
        for first in (FEW, options.versions):
            seed_log(command, options.users // 2, seed=first, workers=os.cpu_count() or 1)
            if first == FEW:
                for number, versions in enumerate((FEW, options.versions)):
                    users[versions] = seed_versions(prepared.database_url, command, number, versions)
        asyncio.run(project_log(prepared.settings["projector"]))
        begin_topics(prepared.database_url, command)

    with running_stack(say=say, parent=options.folder, fill=fill) as stack:
        where = surroundings(stack.database_url, broker=options.broker)
        findings = Findings(title="History: time(many versions) / time(few)", settings=settings, where=where)
        run_rounds(LongHistory(stack, users, options, findings), options.rounds)
    tell(findings, options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a long history costs.")
    parser.add_argument("--versions", type=int, default=100_000, help="of the long one (%(default)s)")
    parser.add_argument("--users", type=int, default=20_000, help="others in the log (%(default)s)")
    add_common_options(parser)
    options, settings = parsed(parser, {"versions": 2_000, "users": 2_000})
    try:
        compare(options, settings)
    except CannotRun as error:
        raise SystemExit(f"history: {error}") from None
    except StopRequested:
        raise SystemExit(INTERRUPTED) from None
