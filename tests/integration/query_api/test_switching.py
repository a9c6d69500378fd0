"""From the topic to the feed and back, as docs/switch-feed-and-topic.md says it, while writes go on."""

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import httpx
import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition

from runtime.settings import Settings
from tests.databases import MakeSettings
from tests.processes import Process, StartProcess
from tests.waiting import eventually

Owner = psycopg.Connection[dict[str, Any]]
ROUNDS = 6
LEEWAY = timedelta(minutes=5)


@dataclass(slots=True, kw_only=True)
class Follower:
    """What a subscriber stores: the version of each user, and where it is in whichever it reads."""

    versions: dict[str, int] = field(default_factory=dict[str, int])
    handled: list[int] = field(default_factory=list[int])
    passed_over: int = 0
    # of the topic: the position of the last record, by partition
    reached: dict[int, int]
    # of the feed
    position: int = 0
    time: str = "1970-01-01T00:00:00Z"

    def take(self, position: int, user_id: str, version: int) -> None:
        held = self.versions.get(user_id, 0)
        if version <= held:
            self.passed_over += 1
            return
        assert version == held + 1, f"{user_id}: version {version} comes after {held}"
        self.versions[user_id] = version
        self.handled.append(position)


class Topic:
    def __init__(self, settings: Settings) -> None:
        self._topic = settings.events_topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.kafka_bootstrap_servers,
                "group.id": "none",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        self.partitions = range(settings.topic_partitions)

    def seek(self, time: str) -> None:
        """To the first records of that time less some minutes; of a partition without one to its end as it was."""
        ends = [self._consumer.get_watermark_offsets(self._at(number), timeout=30)[1] for number in self.partitions]
        since = int((datetime.fromisoformat(time) - LEEWAY).timestamp() * 1000)
        asked = [self._at(number, max(0, since)) for number in self.partitions]
        found = self._consumer.offsets_for_times(asked, timeout=30)
        places = [one.offset if one.offset >= 0 else end for one, end in zip(found, ends, strict=True)]
        self._consumer.assign([self._at(number, place) for number, place in zip(self.partitions, places, strict=True)])

    def _at(self, number: int, offset: int = 0) -> TopicPartition:
        return TopicPartition(self._topic, number, offset)

    def read(self, follower: Follower, records: int) -> None:
        """Until so many records were handled or passed over."""
        for _ in range(records):
            message = self._consumer.poll(30)
            assert message is not None, "the topic has no more"
            assert message.error() is None
            headers = dict(cast("list[tuple[str, bytes]]", message.headers()))
            position, number = int(headers["ce_sequence"]), cast("int", message.partition())
            if position > follower.position:
                follower.take(position, headers["ce_subject"].decode(), int(headers["ce_userversion"]))
            follower.reached[number] = max(position, follower.reached[number])

    def close(self) -> None:
        self._consumer.close()


def read_feed(client: httpx.Client, follower: Follower, pages: int) -> None:
    for _ in range(pages):
        answer = client.get("/events", params={"after": follower.position, "limit": 7}).raise_for_status()
        for event in answer.json():
            follower.take(int(event["sequence"]), event["subject"], int(event["userversion"]))
            follower.time = event["time"]
        follower.position = int(answer.headers["event-position"])


@contextlib.contextmanager
def writing(command: Process) -> Generator[threading.Event]:
    """Users are made and changed until the block ends; the event is set once there are some."""
    begun, stopping = threading.Event(), threading.Event()

    def write() -> None:
        rng = random.Random(7)  # noqa: S311 - load
        made: list[str] = []
        with command.client() as client:
            while not stopping.is_set():
                if len(made) < 5 or rng.random() < 0.3:
                    body = {"email": f"user{len(made)}@example.com"}
                    made.append(client.post("/users", json=body).raise_for_status().json()["id"])
                else:
                    name = {"display_name": f"Name {rng.random()}"}
                    client.patch(f"/users/{rng.choice(made)}", json=name).raise_for_status()
                if len(made) == 20:
                    begun.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield begun
    finally:
        stopping.set()
        thread.join()


@pytest.mark.broker
def test_to_and_fro_nothing_is_lost_or_handled_twice(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner
) -> None:
    settings = make_settings("muster_projector", broker=True)
    command, query = start_process("command_api"), start_process("query_api")
    for process in (command, query):
        process.wait_until_ready()
    rng = random.Random(11)  # noqa: S311 - how far each is read
    topic = Topic(settings)
    follower = Follower(reached=dict.fromkeys(topic.partitions, 0))
    with query.client() as client:
        with writing(command) as begun:
            assert begun.wait(60)
            for _ in range(ROUNDS):
                topic.seek(follower.time)
                follower.reached = dict.fromkeys(topic.partitions, follower.position)
                topic.read(follower, rng.randrange(5, 60))
                follower.position = min(follower.reached.values())
                read_feed(client, follower, rng.randrange(1, 6))
        head = (owner.execute("SELECT position FROM log.head").fetchone() or {})["position"]

        def at_the_end() -> bool:
            read_feed(client, follower, 1)
            return follower.position == head

        eventually(at_the_end, what="the feed is read to its end")
    topic.close()
    assert Counter(follower.handled) == Counter(range(1, head + 1))
    assert follower.passed_over > 0
