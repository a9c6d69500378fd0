"""What one event that cannot be applied does to everybody else's lag, in interleaved rounds beside a quiet run.

    python benchmarks/poison.py [--quick] [--json FILE]

Users are created at a steady rate and each is read back at once; half-way through, an event of somebody else is altered
in the log before anything can read it, or a record that nobody can read is put on the topic.
"""

import argparse
import itertools
import json
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import psycopg
from confluent_kafka import Producer
from connection import request_template
from figures import Findings
from freshness import Freshness
from measuring import measured_freshness
from run import add_common_options, main
from stack import Stack

# alters the seal as the event is written: neither the relay nor the projector ever sees it whole
ALTER = """
CREATE FUNCTION log.alter_one() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.type = 'UserUpdated' AND NEW.data->'changed' ? 'display_name' THEN
        NEW.sealed := set_byte(NEW.sealed, 20, get_byte(NEW.sealed, 20) # 1);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER alter_one BEFORE INSERT ON log.events FOR EACH ROW EXECUTE FUNCTION log.alter_one();
"""
NUMBERS = 1_000_000


class Poison:
    def __init__(self, stack: Stack, options: argparse.Namespace, findings: Findings) -> None:
        self._stack = stack
        self._seconds: float = options.seconds
        self._rate: float = options.rate
        self._findings = findings
        self._first = itertools.count(NUMBERS, NUMBERS)
        self._commands = httpx.Client(
            base_url=f"http://127.0.0.1:{stack.ports['command_api']}", headers=stack.authorization, trust_env=False
        )

    def prepare(self) -> None:
        with psycopg.connect(self._stack.database_url, autocommit=True) as connection:
            connection.execute(ALTER)

    def measurements(self) -> list[Callable[[], None]]:
        planted = {"quiet": None, "poison in the log": self._in_the_log, "poison in the topic": self._in_the_topic}
        return [partial(self._measure, name, plant) for name, plant in planted.items()]

    def name_ratios(self) -> None:
        with psycopg.connect(self._stack.database_url) as connection:
            parked = connection.execute(
                "SELECT (SELECT count(*) FROM log.parked), (SELECT count(*) FROM read_model.parked)"
            ).fetchone()
        assert parked is not None
        assert min(parked) > 0, f"nothing was set aside: {parked}"

    def _measure(self, name: str, plant: Callable[[str], None] | None) -> None:
        planting: threading.Timer | None = None
        if plant is not None:
            victim = self._commands.post("/users", json={"email": f"victim-{next(self._first)}@example.com"})
            planting = threading.Timer(self._seconds / 2, plant, [victim.raise_for_status().json()["id"]])
            planting.start()
        read = {**self._stack.authorization, "min-position": "%(position)s", "prefer": "wait=10"}
        create = {**self._stack.authorization, "content-type": "application/json"}
        _, fresh = measured_freshness(
            Freshness(
                command_port=self._stack.ports["command_api"],
                query_port=self._stack.ports["query_api"],
                create=request_template(
                    "POST", "/users", headers=create, body=json.dumps({"email": "load-%(n)012d@example.com"})
                ),
                read=request_template("GET", "/users/%(id)s", headers=read),
                first=next(self._first),
                rate=self._rate,
                seconds=self._seconds,
            )
        )
        if planting is not None:
            planting.join()
        self._findings.add(name, fresh)

    def _in_the_log(self, victim: str) -> None:
        answer: Any = self._commands.patch(f"/users/{victim}", json={"display_name": "Poisoned"})
        answer.raise_for_status()

    def _in_the_topic(self, victim: str) -> None:
        with psycopg.connect(self._stack.database_url) as connection:
            row = connection.execute("SELECT topic FROM log.publication WHERE topic LIKE '%events%' LIMIT 1").fetchone()
        assert row is not None
        producer = Producer({"bootstrap.servers": self._stack.kafka_bootstrap_servers, "log_level": 0})
        producer.produce(row[0], key=victim, value=b'{"user": {', partition=0)
        assert producer.flush(30) == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The lag of everybody else around an event that cannot be applied.")
    parser.add_argument("--rate", type=float, default=200, help="POSTs/s (%(default)s)")
    add_common_options(parser)
    main("Poison", parser, Poison, quick={})
