"""The relay beside aiokafka's own limit: events of a log that nobody has published, to topics of each round's own.

    python benchmarks/relaying.py [--quick] [--events 150000] [--rounds 3] [--json FILE]

All are rates of events, of which each becomes two records: one of the history topic and one of the snapshot topic.
aiokafka is given the very records, made beforehand, as an idempotent producer with acks=all; `send` hands over one at
a time, `send_batch` whole batches. The integrator's rate is here because it shares the command API's process with the
relay. Needs no Docker; the broker is KAFKA_BOOTSTRAP_SERVERS, or an embedded one.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

from figures import Figure, Findings, surroundings
from footprint import cpu_seconds
from producing import Produced, Production
from relay_alone import Followed, Following
from run import INTERRUPTED, add_common_options, parsed, run_rounds, say, tell
from stocked import Stocked, costs, stocked

from events.topics import admin_client
from muster.failures import CannotRun
from muster.supervisor import StopRequested, stop_requests

FOLDER = Path(__file__).parent


class Relaying:
    def __init__(self, stock: Stocked, options: argparse.Namespace, findings: Findings) -> None:
        self._stock = stock
        self._events: int = options.events
        self._findings = findings

    def prepare(self) -> None:
        """Nothing is kept warm: each measurement is of a process that has just started."""

    def measurements(self) -> list[Callable[[], None]]:
        return [
            self._relay,
            partial(self._produce, "send"),
            partial(self._produce, "send_batch"),
            self._integrate,
        ]

    def name_ratios(self) -> None:
        self._findings.ratios += [("relay", "aiokafka, send"), ("relay", "aiokafka, send_batch")]

    def _relay(self) -> None:
        self._stock.execute("DELETE FROM log.publication")
        self._measure("relay", "relay_alone.py", Following, {"leader": "relay", "end": self._events}, Followed)

    def _integrate(self) -> None:
        self._stock.execute("DELETE FROM log.checkpoints")
        self._stock.execute("DELETE FROM log.tiles")
        self._stock.execute("DELETE FROM log.tree")
        asked = {"leader": "integrator", "end": self._events}
        self._measure("integrator", "relay_alone.py", Following, asked, Followed)

    def _produce(self, manner: Literal["send", "send_batch"]) -> None:
        asked = {"manner": manner, "events": self._events}
        self._measure(f"aiokafka, {manner}", "producing.py", Production, asked, Produced)

    def _measure(
        self, name: str, script: str, asking: type, asked: Mapping[str, Any], answer: type[Followed | Produced]
    ) -> None:
        topics = {
            "EVENTS_TOPIC": f"users.events.relaying-{time.time_ns()}",
            "SNAPSHOT_TOPIC": f"users.snapshot.relaying-{time.time_ns()}",
            "CHECKPOINTS_TOPIC": f"users.checkpoints.relaying-{time.time_ns()}",
        }
        environment = self._stock.environment("muster_command", **topics)
        pids = self._stock.pids()
        before = cpu_seconds(pids)
        found = answer(**_run(script, asdict(asking(environment=environment, **asked))))
        cores = {one: (cpu - before[one]) / found.seconds for one, cpu in cpu_seconds(pids).items()}
        figure = Figure(rate=self._events / found.seconds, cores={"client": found.cpu / found.seconds, **cores})
        self._findings.add(name, figure)
        say(f"{name}: {figure.rate:,.0f} events/s, {found.cpu / self._events * 1e6:.1f} us of processor time each")
        asyncio.run(self._remove(list(topics.values())))

    async def _remove(self, topics: list[str]) -> None:
        # the embedded broker keeps all in memory
        async with admin_client(self._stock.settings("muster_command")) as admin:
            there = set(await admin.list_topics())
            await admin.delete_topics([topic for topic in topics if topic in there])


def _run(script: str, asked: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, str(FOLDER / script)]
    finished = subprocess.run(
        command, input=json.dumps(asked), stdout=subprocess.PIPE, stderr=sys.stderr, text=True, check=True
    )
    # what is logged on the way is in front of it
    return json.loads(finished.stdout.splitlines()[-1])


def relay(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    # of these, two thirds are users and one third what becomes of them
    with stop_requests(), stocked(options.events * 2 // 3 + 2, parent=options.folder) as stock:
        where = surroundings(stock.owner_url, broker=options.broker)
        findings = Findings(title="The relay beside aiokafka", settings=settings, where=where)
        run_rounds(Relaying(stock, options, findings), options.rounds)
    tell(findings, options)
    print(costs(findings))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=150_000, help="of each measurement (%(default)s)")
    add_common_options(parser)
    options, settings = parsed(parser, {"events": 20_000})
    del settings["seconds"]
    try:
        relay(options, settings)
    except CannotRun as error:
        raise SystemExit(f"relaying: {error}") from None
    except StopRequested:
        raise SystemExit(INTERRUPTED) from None
