"""What a longer log and more users cost: the same operations on a small and a big stack, in interleaved rounds.

    python benchmarks/growth.py [--quick] [--small EVENTS] [--big EVENTS] [--json FILE]

`muster seed` makes the small log: a real one, two thirds of whose events are users. The big one is the same with copies
between its events (benchmarks/multiplied.py), and both are asked about the same users. Their topics begin after what
was made: a broker with millions of records would not change what is measured, and the embedded one could not hold them.

Nothing else runs beside what is measured: the command API has no relay, and there is no projector but the measured one.
Besides operations a second the table has operations a second of processor time (of whoever asks and of PostgreSQL),
which a busy machine changes less.
"""

import argparse
import asyncio
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from urllib.parse import urlencode

import psycopg
from apis import run_client
from connection import request_template
from figures import Figure, Findings, surroundings
from growing import Growing, Step
from load import Load
from measuring import cores_at_rest, measured_load
from multiplied import multiply
from run import INTERRUPTED, add_common_options, parsed, run_rounds, say, tell
from seed import begin_topics, project_log
from stack import Prepared, Stack, running_stack

from muster.administrators import create_administrator
from muster.failures import CannotRun
from muster.seeding import seed_log
from muster.supervisor import StopRequested
from projector.placing import FAR_BEHIND
from query_api.listing import Listing, cursor_after

CONNECTIONS = 8
CALLERS = 64
IDS = 100_000
PROCESSES = ("command_api", "query_api")
STEPS = ("load", "append, update", "append, create", "relay", "projector")
REQUESTS = (
    "get by id",
    "first page",
    "page in the middle",
    "one address",
    "a rare role",
    "part of an address",
    "part of a name",
)

# copies lie between what was there before, the first of which is at position 1
LIVING = """
SELECT id, email, display_name FROM read_model.users
WHERE deleted_at IS NULL AND (position - 1) %% %s = 0 ORDER BY random() LIMIT %s
"""
MIDDLE = """
SELECT created_at, id FROM read_model.users
WHERE deleted_at IS NULL AND created_at >= (SELECT created_at FROM read_model.users WHERE id = %s)
ORDER BY created_at, id LIMIT 1
"""


class Growth:
    def __init__(
        self,
        stacks: Sequence[tuple[int, int, Stack]],
        options: argparse.Namespace,
        findings: Findings,
    ) -> None:
        self._stacks = stacks
        self._seconds: float = options.seconds
        self._count: int = options.count
        self._findings = findings
        self._round = itertools.count()
        self._paths: dict[int, Mapping[str, str]] = {}

    def prepare(self) -> None:
        for events, times, stack in self._stacks:
            with psycopg.connect(stack.database_url) as connection:
                found = connection.execute(LIVING, (times, IDS)).fetchall()
                ((created_at, user_id),) = connection.execute(MIDDLE, (found[0][0],)).fetchall()
            (stack.folder / "ids").write_text("\n".join(str(row[0]) for row in found))
            cursor = cursor_after(Listing.model_validate({}), created_at, user_id)
            self._paths[events] = {
                "get by id": "/users/%(id)s",
                "first page": "/users",
                "page in the middle": _path(cursor=cursor),
                "one address": _path(email=found[1][1]),
                "a rare role": _path(role="auditor", sort="-created_at"),
                # of one user's, and of names of which there are more the more users there are
                "part of an address": _path(q=f"{found[1][1].partition('@')[0]}@"),
                "part of a name": _path(q=next(row[2] for row in found[1:] if row[2])),
            }
        for measure in self.measurements():
            measure()
        self._findings.rounds.clear()

    def measurements(self) -> list[Callable[[], None]]:
        """Each of one stack and then of the other, so that both meet the same machine."""
        number = next(self._round)
        pairs = [partial(self._steps, number * self._count, *stack) for stack in self._stacks]
        for what in REQUESTS:
            pairs += [partial(self._load, what, *stack) for stack in self._stacks]
        return list(pairs)

    def name_ratios(self) -> None:
        (small, _, _), (big, _, _) = self._stacks
        for what in (*STEPS, *REQUESTS):
            self._findings.ratios.append((named(what, small), named(what, big)))
            self._findings.ratios.append((named(of_cpu(what), small), named(of_cpu(what), big)))

    def _steps(self, first: int, events: int, _: int, stack: Stack) -> None:
        asked = Growing(
            command=stack.environments["command_api"],
            projector=stack.environments["projector"],
            owner_url=stack.database_url,
            pids={name: pid for name, pid in stack.pids.items() if name in {"postgres", "broker"}},
            ids_file=str(stack.folder / "ids"),
            first=first,
            count=self._count,
            callers=CALLERS,
        )
        for what, found in run_client("growing.py", asdict(asked)).items():
            step = Step(**found)
            cores = {name: taken / step.seconds for name, taken in step.cpu.items()}
            self._keep(what, events, Figure(rate=step.count / step.seconds, cores=cores), ("client", "postgres"))

    def _load(self, what: str, events: int, _: int, stack: Stack) -> None:
        load = Load(
            port=stack.ports["query_api"],
            template=request_template("GET", self._paths[events][what], headers=stack.authorization),
            expected=200,
            connections=CONNECTIONS,
            seconds=self._seconds,
            ids_file=str(stack.folder / "ids"),
        )
        self._keep(what, events, measured_load(stack, load), ("query_api", "postgres"))

    def _keep(self, what: str, events: int, figure: Figure, takers: Sequence[str]) -> None:
        self._findings.add(named(what, events), figure)
        taken = sum(figure.cores[name] for name in takers)
        self._findings.add(
            named(of_cpu(what), events), replace(figure, rate=figure.rate / taken, p50=None, p99=None, cores={})
        )


def _path(**query: str) -> str:
    # filled in with `%`
    return f"/users?{urlencode(query)}".replace("%", "%%")


def named(what: str, events: int) -> str:
    return f"{what}, {events:,}"


def of_cpu(what: str) -> str:
    return f"{what} / CPU s"


def fill(events: int, times: int, prepared: Prepared) -> None:
    """The administrator first, whom a command API makes only in an empty log."""
    command = prepared.settings["command_api"]
    assert command.first_admin_email is not None
    assert command.first_admin_password is not None
    password = command.first_admin_password.get_secret_value()
    email = command.first_admin_email
    asyncio.run(create_administrator(command, email=email, password=password, display_name=None, operator="benchmark"))
    began = time.monotonic()
    seed_log(command, events * 2 // 3, seed=1, workers=os.cpu_count() or 1)
    asyncio.run(project_log(prepared.settings["projector"]))
    say(f"{events:,} events seeded and projected in {time.monotonic() - began:.0f} s")
    if times > 1:
        multiply(prepared.database_url, times)
    begin_topics(prepared.database_url, command)
    say(f"{events * times:,} events ready after {time.monotonic() - began:.0f} s")


def compare(options: argparse.Namespace, settings: dict[str, object]) -> None:
    small: int = options.small
    times: int = options.big // small
    with ExitStack() as started:
        stacks: list[tuple[int, int, Stack]] = []
        for factor in (1, times):
            stack = running_stack(
                say=say,
                parent=options.folder,
                fill=partial(fill, small, factor),
                settings={"RELAY": "false"},
                processes=PROCESSES,
            )
            stacks.append((small * factor, factor, started.enter_context(stack)))
        where = surroundings(stacks[1][2].database_url, broker=options.broker)
        findings = Findings(title="Growth: cost(big) / cost(small)", settings=settings, where=where)
        findings.cores_at_rest.update(cores_at_rest(stacks[1][2]))
        run_rounds(Growth(stacks, options, findings), options.rounds)
    tell(findings, options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What more events and users cost: each part's work, reads, pages.")
    parser.add_argument("--small", type=int, default=100_000, help="events of one log (%(default)s)")
    parser.add_argument("--big", type=int, default=10_000_000, help="events of the other (%(default)s)")
    parser.add_argument("--count", type=int, default=9_000, help="users loaded, changed and made (%(default)s)")
    add_common_options(parser)
    parser.set_defaults(rounds=5, seconds=3)
    options, settings = parsed(parser, {"small": 6_000, "big": 60_000, "count": 1_000})
    if 2 * options.count >= FAR_BEHIND:
        parser.error(f"--count: from {FAR_BEHIND // 2:,} on the projector reads the log, not the topic")
    try:
        compare(options, settings)
    except CannotRun as error:
        raise SystemExit(f"growth: {error}") from None
    except StopRequested:
        raise SystemExit(INTERRUPTED) from None
