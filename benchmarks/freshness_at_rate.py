"""How soon a write is seen: by GET after its acknowledgement, and by a consumer of the events topic after it was sent.

    python benchmarks/freshness_at_rate.py [--quick] [--rate 500] [--json FILE]

POSTs at a steady rate, one after another and not in bursts; the consumer is a plain one in a process of its own.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict

from apis import answer_of, run_client, started_client
from connection import request_template
from figures import Figure, Findings
from footprint import cpu_seconds
from freshness import Fresh, Freshness
from freshness_consumer import Consuming
from load import GRACE, quantile
from run import add_common_options, main
from stack import Stack, settings_of

NUMBERS = 10_000_000
WARM_UP = 2.0
# between empty fetches of the embedded broker
REST = 0.002


class FreshnessAtRate:
    def __init__(self, stack: Stack, options: argparse.Namespace, findings: Findings) -> None:
        self._stack = stack
        self._rate: float = options.rate
        self._seconds: float = options.seconds
        self._findings = findings
        self._first = itertools.count(NUMBERS, NUMBERS)

    def prepare(self) -> None:
        """Warm all processes up, at the same rate."""
        run_client("freshness.py", asdict(self._asked(WARM_UP)))

    def measurements(self) -> list[Callable[[], None]]:
        return [self._measure]

    def name_ratios(self) -> None:
        """Give none: these are times to be kept to."""

    def _measure(self) -> None:
        asked = self._asked(self._seconds)
        environment = self._stack.environments["projector"]
        consuming = Consuming(
            servers=self._stack.kafka_bootstrap_servers,
            topic=environment["EVENTS_TOPIC"],
            partitions=settings_of(environment).topic_partitions,
            count=int(asked.rate * asked.seconds),
            seconds=asked.seconds + GRACE,
            rest=REST if "FETCH_PAUSE" in environment else 0.0,
        )
        with started_client("freshness_consumer.py", asdict(consuming)) as consumer:
            assert consumer.stdout is not None
            assert consumer.stdout.readline() == "ready\n", answer_of(consumer)
            before = cpu_seconds(self._stack.pids)
            fresh = Fresh(**run_client("freshness.py", asdict(asked)))
            after = cpu_seconds(self._stack.pids)
            received = answer_of(consumer)
        self._stack.settle()
        cores = {name: (after[name] - before[name]) / asked.seconds for name in after} | {"client": fresh.cpu}
        delays = sorted((received[user_id] - sent) * 1000 for user_id, sent in fresh.sent.items())
        rate = f"at {self._rate:g}/s"
        self._findings.add(
            f"POST {rate}", Figure(rate=fresh.rate, p50=fresh.posted_p50, p99=fresh.posted_p99, cores=cores)
        )
        self._findings.add("  sent later than due", Figure(rate=fresh.rate, p99=fresh.late_p99))
        self._findings.add(
            "  from its answer to readable", Figure(rate=fresh.rate, p50=fresh.p50, p99=fresh.p99, worst=fresh.worst)
        )
        self._findings.add(
            "  from POST to a consumer",
            Figure(rate=fresh.rate, p50=quantile(delays, 0.5), p99=quantile(delays, 0.99), worst=delays[-1]),
        )

    def _asked(self, seconds: float) -> Freshness:
        body = {
            "email": "fresh-%(n)012d@example.com",
            "display_name": "Fresh %(n)012d",
            "roles": ["user"],
            "attributes": {"team": "engines", "floor": 3},
        }
        headers = {
            **self._stack.authorization,
            "content-type": "application/json",
            "idempotency-key": "fresh-%(n)012d",
        }
        waiting = {**self._stack.authorization, "min-position": "%(position)s", "prefer": "wait=10"}
        return Freshness(
            command_port=self._stack.ports["command_api"],
            query_port=self._stack.ports["query_api"],
            create=request_template("POST", "/users", headers=headers, body=json.dumps(body)),
            read=request_template("GET", "/users/%(id)s", headers=waiting),
            first=next(self._first),
            rate=self._rate,
            seconds=seconds,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How soon a write is readable, and received from the topic.")
    parser.add_argument("--rate", type=float, default=500, help="POSTs a second (%(default)s)")
    add_common_options(parser)
    parser.set_defaults(seconds=15)
    main("Freshness", parser, FreshnessAtRate, quick={"seconds": 4.0})
