"""What bounds what: one and two processes of each kind, the processor time that each part takes, and the head's lock.

    python benchmarks/scaling.py [--quick] [--seconds 5] [--json FILE]

Three ways to run Muster, in turn within each round: one process of each kind with the relay within the command API; two
of each, with one relay leading, two projectors in one group and the load divided evenly; one of each with the relay in
a process of its own, which tells its time from the API's.

Of each operation the second table has the microseconds of processor time that each part takes until all has arrived in
the read model; PostgreSQL's are told apart by whom its backends serve. 1,000,000 divided by them is the rate at which
the part fills one core. docs/performance.md makes a model of it.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import psycopg
from apis import answer_of, started_client
from beside import RELAY, beside
from connection import request_template
from figures import Figure, Findings
from footprint import cpu_seconds
from head_lock import BATCHES, Held, measured_head
from load import Load, Loaded
from run import add_common_options, main, say
from stack import Stack

CONNECTIONS = 32
NUMBERS = 10_000_000
OPERATIONS = ("create", "update", "get by id", "list")
WRITES = ("create", "update")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    name: str
    copies: int
    relay_apart: bool = False

    @property
    def processes(self) -> list[str]:
        kinds = ("command_api", "query_api", "projector")
        found = [f"{kind}.{number}" for kind in kinds for number in range(1, self.copies + 1)]
        return [*found, RELAY] if self.relay_apart else found

    @property
    def settings(self) -> dict[str, str]:
        return {"RELAY": str(not self.relay_apart).lower()}


LAYOUTS = (
    Layout(name="one of each", copies=1),
    Layout(name="two of each", copies=2),
    Layout(name="relay apart", copies=1, relay_apart=True),
)


class Scaling:
    def __init__(self, stack: Stack, options: argparse.Namespace, findings: Findings) -> None:
        self._stack = stack
        self._seconds: float = options.seconds
        self._users: int = options.users
        self._batches: Mapping[int, int] = {1: 90, 8: 60, 64: 18} if options.quick else BATCHES
        self._findings = findings
        self._first = itertools.count(NUMBERS, NUMBERS)
        # by operation and layout, then by part: microseconds, of each round
        self._costs: dict[str, dict[str, list[float]]] = {}
        self._held: list[Held] = []

    def prepare(self) -> None:
        with beside(self._stack, *LAYOUTS[0].processes, settings=LAYOUTS[0].settings) as stack:
            load = replace(self._load(stack, "create", 1, 1), seconds=300, limit=self._users, warm_up=0)
            with started_client("load.py", asdict(load)) as client:
                answer_of(client)
            _settled(stack)
        with psycopg.connect(self._stack.database_url, autocommit=True) as connection:
            # plans are those of a table that has been there for a while
            connection.execute("VACUUM ANALYZE")
            ids = [str(row[0]) for row in connection.execute("SELECT user_id FROM log.user_keys ORDER BY random()")]
        for copies in {layout.copies for layout in LAYOUTS}:
            for number in range(copies):
                # two processes that change one user would refuse each other's changes
                self._ids(copies, number + 1).write_text("\n".join(ids[number::copies]))

    def measurements(self) -> list[Callable[[], None]]:
        return [self._lock, *(partial(self._measure, layout) for layout in LAYOUTS)]

    def name_ratios(self) -> None:
        for operation in OPERATIONS:
            self._findings.ratios.append((f"{operation}, two of each", f"{operation}, one of each"))
        model = self._model()
        print(self._table(model))
        self._findings.details |= {"microseconds": model, "head held, microseconds": self._lock_model()}

    def _lock(self) -> None:
        say("the head's lock")
        for held in measured_head(self._stack.log_writer_url, self._batches):
            self._held.append(held)
            name = f"head, {held.kind}, batches of {held.size}"
            self._findings.add(name, Figure(rate=held.size / held.seconds, p50=held.seconds * 1000))

    def _measure(self, layout: Layout) -> None:
        say(layout.name)
        with beside(self._stack, *layout.processes, settings=layout.settings) as stack:
            # the group has its partitions, and every process has answered, before anything is counted
            for operation in OPERATIONS:
                self._loaded(stack, operation, layout, seconds=1.0)
            _settled(stack)
            for operation in OPERATIONS:
                self._count(stack, operation, layout)

    def _count(self, stack: Stack, operation: str, layout: Layout) -> None:
        before, pids, began = self._taken(stack), cpu_seconds(stack.pids), time.perf_counter()
        loaded = self._loaded(stack, operation, layout, seconds=self._seconds)
        passed = time.perf_counter() - began
        cores = {name: (taken - pids[name]) / passed for name, taken in cpu_seconds(stack.pids).items()}
        if operation in WRITES:
            _settled(stack)
        name = f"{operation}, {layout.name}"
        count = sum(one.count for one in loaded)
        costs = self._costs.setdefault(name, {})
        for part, spent in self._taken(stack).items():
            # who has nothing to do with it only looks now and then whether there is something to be done
            if ("query_api" in part) is (operation not in WRITES):
                costs.setdefault(part, []).append((spent - before.get(part, 0.0)) / count * 1e6)
        self._findings.add(
            name,
            Figure(
                rate=sum(one.rate for one in loaded),
                p50=statistics.mean(one.p50 for one in loaded),
                p99=max(one.p99 for one in loaded),
                cores=cores | {"clients": sum(one.cpu for one in loaded)},
            ),
        )

    def _loaded(self, stack: Stack, operation: str, layout: Layout, *, seconds: float) -> list[Loaded]:
        with ExitStack() as started:
            clients = [
                started.enter_context(
                    started_client(
                        "load.py",
                        asdict(replace(self._load(stack, operation, layout.copies, number), seconds=seconds)),
                    )
                )
                for number in range(1, layout.copies + 1)
            ]
            return [Loaded(**answer_of(client)) for client in clients]

    def _taken(self, stack: Stack) -> dict[str, float]:
        """Seconds of processor time by part: processes of a kind together, PostgreSQL's by whom they serve."""
        backends: dict[str, int] = {}
        for kind in ("command_api", "query_api", "projector"):
            # a role sees of its own sessions what they are for
            with psycopg.connect(stack.environments[kind]["DATABASE_URL"], autocommit=True) as connection:
                found = connection.execute(
                    "SELECT application_name, pid FROM pg_stat_activity"
                    " WHERE usename = current_user AND pid <> pg_backend_pid()"
                ).fetchall()
            for application, pid in found:
                backends[f"postgres: {served(kind, application)}#{pid}"] = pid
        taken = cpu_seconds({**stack.pids, **backends})
        total, parts = taken.pop("postgres"), dict[str, float]()
        for name, seconds in taken.items():
            # "command_api" without a number is the one that only gave out the token
            if name != "bare":
                part = name.partition("#")[0].partition(".")[0]
                parts[part] = parts.get(part, 0.0) + seconds
        parts["postgres: the rest"] = total - sum(taken[name] for name in backends)
        return parts

    def _ids(self, copies: int, number: int) -> Path:
        return self._stack.folder / f"ids.{number}.of.{copies}"

    def _load(self, stack: Stack, operation: str, copies: int, number: int) -> Load:
        headers = {**stack.authorization, "content-type": "application/json"}
        match operation:
            case "create":
                body = {
                    "email": "scale-%(n)012d@example.com",
                    "display_name": "Scale %(n)012d",
                    "roles": ["user"],
                    "attributes": {"team": "engines", "floor": 3},
                }
                keyed = {**headers, "idempotency-key": "key-%(n)012d"}
                template = request_template("POST", "/users", headers=keyed, body=json.dumps(body))
            case "update":
                body = json.dumps({"display_name": "Name %(n)012d"})
                keyed = {**headers, "idempotency-key": "key-%(n)012d"}
                template = request_template("PATCH", "/users/%(id)s", headers=keyed, body=body)
            case "get by id":
                template = request_template("GET", "/users/%(id)s", headers=stack.authorization)
            case _:
                template = request_template("GET", "/users", headers=stack.authorization)
        kind = "command_api" if operation in WRITES else "query_api"
        return Load(
            port=stack.ports[f"{kind}.{number}"],
            template=template,
            expected=201 if operation == "create" else 200,
            connections=CONNECTIONS // copies,
            seconds=self._seconds,
            first=next(self._first),
            ids_file=str(self._ids(copies, number)) if operation in {"update", "get by id"} else None,
        )

    def _model(self) -> dict[str, dict[str, float]]:
        return {
            name: {part: statistics.median(found) for part, found in costs.items() if statistics.median(found) >= 0.5}
            for name, costs in self._costs.items()
        }

    def _lock_model(self) -> dict[str, dict[str, float]]:
        """Of each kind, microseconds for a batch however small and for each event in it: from the two ends."""
        model: dict[str, dict[str, float]] = {}
        least, most = min(self._batches), max(self._batches)
        for kind in WRITES:
            low, high = (
                statistics.median(one.seconds * 1e6 for one in self._held if one.kind == kind and one.size == size)
                for size in (least, most)
            )
            event = (high - low) / (most - least)
            model[kind] = {"batch": low - least * event, "event": event}
        return model

    def _table(self, model: Mapping[str, Mapping[str, float]]) -> str:
        parts = sorted({part for costs in model.values() for part in costs})
        lines: list[str] = []
        for layout in LAYOUTS:
            columns = [f"{operation}, {layout.name}" for operation in OPERATIONS]
            lines += [f"{'microseconds, ' + layout.name:34}" + _cells(OPERATIONS)]
            lines += [
                f"{part:34}" + _cells([f"{model[column].get(part, 0.0):,.0f}" for column in columns])
                for part in parts
                if any(part in model[column] for column in columns)
            ]
            lines.append("")
        for kind, held in self._lock_model().items():
            lines.append(f"head's lock, {kind}: {held['batch']:,.0f} us a batch and {held['event']:,.1f} us an event")
        return "\n".join([*lines, ""])


def served(kind: str, application: str) -> str:
    """Whom a backend serves; the names are the processes' own, as far as they give one."""
    for sign in ("relay", "integrator", "writer", "reader"):
        if sign in application:
            return sign
    return kind


def _cells(values: Sequence[str]) -> str:
    return "".join(f"{value:>12}" for value in values)


def _settled(stack: Stack) -> None:
    """As the stack's own, which asks the query API that this stack may not have."""
    replace(stack, ports={**stack.ports, "query_api": stack.ports["query_api.1"]}).settle()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Rates and processor time of one and two processes of each kind.")
    parser.add_argument("--users", type=int, default=10_000, help="that are read and updated in turn (%(default)s)")
    add_common_options(parser)
    parser.set_defaults(seconds=5)
    main(
        "Scaling",
        parser,
        Scaling,
        quick={"users": 1000, "seconds": 1.5},
        settings_of_all={"RELAY": "false"},
        processes=("command_api",),
    )
