"""A full topic consumed to a read model of many users, and the same from the log, by one projector process.

    python benchmarks/projecting.py [--quick] [--users 1000000] [--events 100000] [--rounds 3] [--json FILE]

In each round, `events` users are changed at random while no projector may apply anything; then the topic that the
relay has filled is consumed to its end. The same again with the projector ended meanwhile: it starts far behind, and
catches up from the log. Rates and processor time are from the first batch that is applied to the last. Needs no
Docker; the broker is KAFKA_BOOTSTRAP_SERVERS, or an embedded one.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import httpx
import psycopg
from changing import append_changes
from figures import Figure, Findings, surroundings
from footprint import cpu_seconds, memory_of
from prometheus_client.parser import text_string_to_metric_families
from relay_alone import Following
from rival_processes import library_runner
from run import INTERRUPTED, add_common_options, parsed, run_rounds, say, tell
from seed import begin_topics, project_log
from stocked import Stocked, costs, stocked

from events.user import UserId
from muster.embedded.ports import free_port
from muster.failures import CannotRun
from muster.supervisor import StopRequested, stop_requests

FOLDER = Path(__file__).parent
LOOK_EVERY = 0.01
# it is kept from applying anything while the topic is filled: nothing is wrong with it then
HELD = {"STUCK_AFTER": "600"}
WITHIN = 120.0
LIBRARY = "library eventsourcing's runner"
REACHED = "SELECT coalesce(sum(next_offset), 0), coalesce(min(position), 0) FROM read_model.progress"
ENDS = "SELECT sum(next_offset), min(position) FROM log.publication WHERE topic = %s"
SOME = "SELECT user_id FROM log.user_keys ORDER BY random() LIMIT %s"


class Projecting:
    def __init__(self, stock: Stocked, options: argparse.Namespace, findings: Findings) -> None:
        self._stock = stock
        self._events: int = options.events
        self._findings = findings
        suffix = str(time.time_ns())
        self._topics = {
            "EVENTS_TOPIC": f"users.events.projecting-{suffix}",
            "SNAPSHOT_TOPIC": f"users.snapshot.projecting-{suffix}",
            "PROJECTOR_GROUP": f"projecting-{suffix}",
        }
        self._seed = 0

    def prepare(self) -> None:
        settings = self._stock.settings("muster_projector", **self._topics)
        say("projecting them")
        asyncio.run(project_log(settings))
        begin_topics(self._stock.owner_url, settings)

    def measurements(self) -> list[Callable[[], None]]:
        return [self._consume, self._library, self._catch_up]

    def name_ratios(self) -> None:
        self._findings.ratios += [("from the topic", LIBRARY), ("from the log", "from the topic")]

    def _consume(self) -> None:
        with self._projector("topic") as process:
            self._wait_for(process, lambda told: told == self._ends())
            with psycopg.connect(self._stock.owner_url) as holding:
                # what the projector locks before it applies anything
                holding.execute("SELECT FROM read_model.progress FOR UPDATE")
                self._change()
                self._publish()
                time.sleep(1)
                before = self._reached()
                holding.rollback()
            self._measure("from the topic", process, before, self._ends(), 0)

    def _library(self) -> None:
        """It starts with an empty table, and opens nothing that was sealed: both are in its favour."""
        self._findings.add(LIBRARY, library_runner(self._stock.owner_url, events=20_000, users=5000))

    def _catch_up(self) -> None:
        before = self._reached()
        self._change()
        self._publish()
        with self._projector("log") as process:
            self._measure("from the log", process, before, self._ends(), 1)

    def _measure(
        self, name: str, process: subprocess.Popen[bytes], before: tuple[int, int], end: tuple[int, int], what: int
    ) -> None:
        """`what`: 0 counts offsets of the topic, 1 positions of the log."""
        first = self._wait_for(process, lambda told: told[what] > before[what])
        pids = self._stock.pids(projector=process.pid)
        cpu, began = cpu_seconds(pids), time.perf_counter()
        self._wait_for(process, lambda told: told[what] >= end[what])
        seconds = time.perf_counter() - began
        cores = {one: (after - cpu[one]) / seconds for one, after in cpu_seconds(pids).items()}
        rate = (end[what] - first[what]) / seconds
        self._findings.add(name, Figure(rate=rate, cores=cores))
        self._findings.remember_memory(name, {"projector": memory_of(process.pid)})
        say(f"{name}: {rate:,.0f} events/s")

    def _wait_for(
        self, process: subprocess.Popen[bytes], reached: Callable[[tuple[int, int]], bool]
    ) -> tuple[int, int]:
        deadline = time.monotonic() + WITHIN
        with psycopg.connect(self._stock.owner_url, autocommit=True) as connection:
            while True:
                told = _pair(connection.execute(REACHED).fetchone())
                if reached(told):
                    return told
                if process.poll() is not None or time.monotonic() > deadline:
                    raise CannotRun(f"the projector stays at {told}: {self._log.read_text()[-2000:]}")
                time.sleep(LOOK_EVERY)

    def _reached(self) -> tuple[int, int]:
        return _pair(self._stock.execute(REACHED)[0])

    def _ends(self) -> tuple[int, int]:
        return _pair(self._stock.execute(ENDS, (self._topics["EVENTS_TOPIC"],))[0])

    def _change(self) -> None:
        self._seed += 1
        ids = [UserId(row[0]) for row in self._stock.execute(SOME, (self._events,))]  # pyright: ignore[reportArgumentType]
        asyncio.run(append_changes(self._stock.settings("muster_command"), ids, seed=self._seed))

    def _publish(self) -> None:
        ((end,),) = self._stock.execute("SELECT position FROM log.head")
        environment = self._stock.environment("muster_command", **self._topics)
        asked = Following(environment=environment, leader="relay", end=int(str(end)))
        command = [sys.executable, str(FOLDER / "relay_alone.py")]
        subprocess.run(command, input=json.dumps(asdict(asked)), stdout=sys.stderr, text=True, check=True)

    @property
    def _log(self) -> Path:
        return self._stock.folder / "projector.log"

    @contextmanager
    def _projector(self, source: Literal["topic", "log"]) -> Generator[subprocess.Popen[bytes]]:
        """Raises CannotRun when it has applied, by the end, what it read elsewhere."""
        port = free_port()
        environment = self._stock.environment("muster_projector", **self._topics, **HELD, PROJECTOR_PORT=str(port))
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "projector"],
                env=environment,
                cwd=self._stock.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
            applied = _applied(port)
            if applied.get(source, 0) < sum(applied.values()):
                raise CannotRun(f"not all was read from the {source}: {applied}")
        finally:
            process.terminate()
            process.wait(30)


def _applied(port: int) -> dict[str, float]:
    """Events that a projector has applied, by where it read them."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    return {
        sample.labels["source"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "muster_projector_applied_total"
    }


def _pair(row: Any) -> tuple[int, int]:  # noqa: ANN401 - a row
    return int(row[0]), int(row[1])


def project(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    with stop_requests(), stocked(options.users, parent=options.folder) as stock:
        where = surroundings(stock.owner_url, broker=options.broker)
        findings = Findings(title="The projector", settings=settings, where=where)
        run_rounds(Projecting(stock, options, findings), options.rounds)
    tell(findings, options)
    print(costs(findings))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000, help="in the read model (%(default)s)")
    parser.add_argument("--events", type=int, default=100_000, help="of each measurement, changes (%(default)s)")
    add_common_options(parser)
    options, settings = parsed(parser, {"users": 60_000, "events": 40_000})
    del settings["seconds"]
    try:
        project(options, settings)
    except CannotRun as error:
        raise SystemExit(f"projecting: {error}") from None
    except StopRequested:
        raise SystemExit(INTERRUPTED) from None
