"""What more users cost: the same requests to a small and a big stack, in interleaved rounds.

    python benchmarks/growth.py [--quick] [--small N] [--big N] [--json FILE]

Both logs are made by `muster seed`. Their topics begin after what was seeded: a broker with a million records of each
would not change what is measured, and the embedded one could not hold them.
"""

import argparse
import asyncio
import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from urllib.parse import urlencode

import psycopg
from connection import request_template
from figures import Findings, surroundings
from load import Load
from measuring import cores_at_rest, measured_load
from run import INTERRUPTED, add_common_options, parsed, run_rounds, say, tell
from seed import begin_topics, project_log
from stack import Prepared, Stack, running_stack

from events.wire import time_to_wire
from muster.administrators import create_administrator
from muster.failures import CannotRun
from muster.seeding import seed_log
from muster.supervisor import StopRequested
from query_api.listing import Listing, cursor_after

CONNECTIONS = 8
# what the embedded broker takes without slowing down
WRITES = 1500
NUMBERS = 10_000_000
IDS = 100_000

LIVING = "SELECT id FROM read_model.users WHERE deleted_at IS NULL ORDER BY random() LIMIT %s"
MIDDLE = """
SELECT created_at, id FROM read_model.users WHERE deleted_at IS NULL ORDER BY created_at, id
OFFSET (SELECT count(*) / 2 FROM read_model.users) LIMIT 1
"""


class Growth:
    def __init__(self, stacks: Sequence[tuple[int, Stack]], options: argparse.Namespace, findings: Findings) -> None:
        self._stacks = stacks
        self._seconds: float = options.seconds
        self._findings = findings
        self._first = itertools.count(NUMBERS, NUMBERS)
        self._middles: dict[int, str] = {}

    def prepare(self) -> None:
        for users, stack in self._stacks:
            with psycopg.connect(stack.database_url) as connection:
                ids = connection.execute(LIVING, (IDS,)).fetchall()
                (stack.folder / "ids").write_text("\n".join(str(row[0]) for row in ids))
                ((created_at, user_id),) = connection.execute(MIDDLE).fetchall()
            cursor = cursor_after(Listing.model_validate({}), time_to_wire(created_at), str(user_id))
            # filled in with `%`
            self._middles[users] = f"/users?{urlencode({'cursor': cursor})}".replace("%", "%%")
            for measurement in self._of(users, stack):
                measurement()
        self._findings.rounds.clear()

    def measurements(self) -> list[Callable[[], None]]:
        """Each request to one stack and then to the other, so that both meet the same machine."""
        return list(itertools.chain(*zip(*(self._of(users, stack) for users, stack in self._stacks), strict=True)))

    def name_ratios(self) -> None:
        (small, _), (big, _) = self._stacks
        self._findings.ratios += [(named(what, small), named(what, big)) for what in REQUESTS]

    def _of(self, users: int, stack: Stack) -> list[Callable[[], None]]:
        paths = {"get by id": "/users/%(id)s", "first page": "/users", "page in the middle": self._middles[users]}
        body = {"email": "growth-%(n)012d@example.com", "display_name": "Growth %(n)012d", "roles": ["user"]}
        create = request_template("POST", "/users", headers=self._headers(stack), body=json.dumps(body))
        update = request_template(
            "PATCH", "/users/%(id)s", headers=self._headers(stack), body=json.dumps({"display_name": "Name %(n)012d"})
        )
        measurements: list[Callable[[], None]] = [
            partial(self._write, users, stack, "create", create, 201),
            partial(self._write, users, stack, "update", update, 200),
        ]
        for what, path in paths.items():
            template = request_template("GET", path, headers=stack.authorization)
            measurements.append(partial(self._load, users, stack, what, template, 200, "query_api", None))
        return measurements

    def _write(self, users: int, stack: Stack, what: str, template: str, expected: int) -> None:
        self._load(users, stack, what, template, expected, "command_api", WRITES)
        # what comes next is not to share the machine with the projector
        stack.settle()

    def _load(
        self, users: int, stack: Stack, what: str, template: str, expected: int, process: str, limit: int | None
    ) -> None:
        load = Load(
            port=stack.ports[process],
            template=template,
            expected=expected,
            connections=CONNECTIONS,
            seconds=self._seconds,
            warm_up=0.0 if limit is not None else self._seconds / 10,
            first=next(self._first),
            limit=limit,
            ids_file=str(stack.folder / "ids"),
        )
        self._findings.add(named(what, users), measured_load(stack, load))

    @staticmethod
    def _headers(stack: Stack) -> dict[str, str]:
        return {**stack.authorization, "content-type": "application/json"}


REQUESTS = ("create", "update", "get by id", "first page", "page in the middle")


def named(what: str, users: int) -> str:
    return f"{what}, {users:,} users"


def fill(users: int, prepared: Prepared) -> None:
    """The administrator first, whom a command API makes only in an empty log."""
    command = prepared.settings["command_api"]
    assert command.first_admin_email is not None
    assert command.first_admin_password is not None
    password = command.first_admin_password.get_secret_value()
    email = command.first_admin_email
    asyncio.run(create_administrator(command, email=email, password=password, display_name=None, operator="benchmark"))
    began = time.monotonic()
    seed_log(command, users, seed=1, workers=os.cpu_count() or 1)
    seeded = time.monotonic()
    say(f"{users:,} users seeded in {seeded - began:.0f} s")
    asyncio.run(project_log(prepared.settings["projector"]))
    begin_topics(prepared.database_url, command)
    say(f"and projected in {time.monotonic() - seeded:.0f} s")


def compare(options: argparse.Namespace, settings: dict[str, object]) -> None:
    with ExitStack() as started:
        stacks = [
            (
                users,
                started.enter_context(running_stack(say=say, parent=options.folder, fill=partial(fill, users))),
            )
            for users in (options.small, options.big)
        ]
        where = surroundings(stacks[1][1].database_url, broker=options.broker)
        findings = Findings(title="Growth: time(big) / time(small)", settings=settings, where=where)
        findings.cores_at_rest.update(cores_at_rest(stacks[1][1]))
        run_rounds(Growth(stacks, options, findings), options.rounds)
    tell(findings, options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What more users cost: writes, reads, pages.")
    parser.add_argument("--small", type=int, default=100_000, help="users of one stack (%(default)s)")
    parser.add_argument("--big", type=int, default=1_000_000, help="users of the other (%(default)s)")
    add_common_options(parser)
    options, settings = parsed(parser, {"small": 2_000, "big": 20_000})
    try:
        compare(options, settings)
    except CannotRun as error:
        raise SystemExit(f"growth: {error}") from None
    except StopRequested:
        raise SystemExit(INTERRUPTED) from None
