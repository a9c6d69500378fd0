import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from events.broker_connection import connection_arguments
from events.topics import Record, poll
from muster.running import RunningStack
from muster.target import broker_of
from runtime.broker_settings import BrokerSettings
from runtime.secret_values import secret_in

TOPIC = "users.events.v1"
EVENTS_WITHIN = 15.0


class StepFailed(Exception):
    """A step of the story did not go as it should."""


@dataclass(slots=True, kw_only=True)
class Story:
    """One user's life over HTTP, told line by line; raises StepFailed where it goes wrong."""

    stack: RunningStack
    say: Callable[[str], None]
    client: httpx.AsyncClient
    step: str = ""
    steps: int = field(default=0)

    async def ask(
        self,
        step: str,
        method: str,
        url: str,
        *,
        status: int,
        body: Mapping[str, object] | None = None,
        headers: dict[str, str] | None = None,
        unshown: Collection[str] = (),
    ) -> httpx.Response:
        """Members of either body that are `unshown` are secrets."""
        self.steps += 1
        self.step = step
        self.say(f"\n{self.steps}. {step}")
        self.say(f"   {method} {url}" + "".join(f"  {name}: {value}" for name, value in (headers or {}).items()))
        if body is not None:
            self.say(f"   {_shown(body, unshown)}")
        try:
            answer = await self.client.request(method, url, json=body, headers=headers)
        except httpx.TransportError as error:
            raise StepFailed(f"{step}: no answer from {url} ({error!r})") from None
        shown = ("ETag", "Event-Position")
        told = "".join(f"  {name}: {answer.headers[name]}" for name in shown if name in answer.headers)
        self.say(f"   -> {answer.status_code} {answer.reason_phrase}{told}")
        self.say(f"   {_shown(answer.json(), unshown) if unshown and answer.is_success else answer.text}")
        self.check(answer.status_code == status, f"expected {status}, got {answer.status_code}")
        return answer

    def check(self, fact: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
        if not fact:
            raise StepFailed(f"{self.step}: {otherwise}")


async def tell(stack: RunningStack, say: Callable[[str], None]) -> int:
    """Log in, create, read, change, refuse, delete, and find the same on the topic; gives how many steps that were.

    Raises StepFailed.
    """
    async with (
        httpx.AsyncClient(timeout=30, trust_env=False) as client,
        _topic_from_now(broker_of(stack)) as consumer,
    ):
        story = Story(stack=stack, say=say, client=client)
        await _log_in(story)
        user_id = await _over_http(story)
        await _on_the_topic(story, consumer, user_id)
    return story.steps


async def _log_in(story: Story) -> None:
    password = secret_in(Path(story.stack.admin_password_file))
    form = {"username": story.stack.admin_email, "password": password}
    secret = ("password", "access_token", "refresh_token")
    url = f"{story.stack.command_url}/login"
    tokens = await story.ask("Log in as the administrator", "POST", url, status=200, body=form, unshown=secret)
    story.client.headers["Authorization"] = f"Bearer {tokens.json()['access_token']}"


async def _over_http(story: Story) -> str:
    users = f"{story.stack.command_url}/users"
    email = f"ada.{secrets.token_hex(4)}@example.com"
    person = {"email": email, "display_name": "Ada Lovelace", "roles": ["engineer"]}

    created = await story.ask("Create a user", "POST", users, status=201, body=person)
    user_id = str(created.json()["id"])
    written, read = f"{users}/{user_id}", f"{story.stack.query_url}/users/{user_id}"

    def at(answer: httpx.Response) -> dict[str, str]:
        return {"Min-Position": answer.headers["Event-Position"], "Prefer": "wait=10"}

    found = await story.ask("Read it back at once", "GET", read, status=200, headers=at(created))
    story.check(found.json()["email"] == email, "the read model has another e-mail")

    change = {"display_name": "Ada King"}
    changed = await story.ask("Change one field", "PATCH", written, status=200, body=change)
    found = await story.ask("The other fields stayed", "GET", read, status=200, headers=at(changed))
    now = {name: found.json()[name] for name in person}
    story.check(now == person | change, f"the record is now {now}")

    stale = {"If-Match": created.headers["ETag"]}
    change = {"display_name": "Ada Byron"}
    await story.ask("A stale change is refused", "PATCH", written, status=412, body=change, headers=stale)
    again = person | {"email": email.upper()}
    await story.ask("So is an e-mail that is taken", "POST", users, status=409, body=again)

    deleted = await story.ask("Delete the user", "DELETE", written, status=200)
    await story.ask("It is gone", "GET", read, status=410, headers=at(deleted))
    return user_id


async def _on_the_topic(story: Story, consumer: AIOKafkaConsumer, user_id: str) -> None:
    story.steps += 1
    story.step = f"The topic {TOPIC} tells the same, in order"
    story.say(f"\n{story.steps}. {story.step}")
    expected = ["created", "updated", "deleted"]
    try:
        async with asyncio.timeout(EVENTS_WITHIN):
            records = await _records_of(consumer, user_id, len(expected))
    except TimeoutError:
        raise StepFailed(f"{story.step}: not all {len(expected)} events came in {EVENTS_WITHIN:g} s") from None
    except KafkaError as error:
        raise StepFailed(f"{story.step}: {error}") from None
    seen: list[str] = []
    for record in records:
        headers = {name: value.decode() for name, value in record.headers}
        seen.append(headers["ce_type"])
        story.say(f"   partition {record.partition} offset {record.offset} key {user_id}")
        story.say("   " + "  ".join(f"{name}: {headers[name]}" for name in ("ce_type", "ce_sequence", "ce_id")))
        story.say(f"   {(record.value or b'').decode()}")
    in_order = all(kind in wire.lower() for kind, wire in zip(expected, seen, strict=True))
    story.check(in_order, f"the topic has {seen}")


async def _records_of(consumer: AIOKafkaConsumer, user_id: str, wanted: int) -> Sequence[Record]:
    found: list[Record] = []
    while len(found) < wanted:
        polled = await poll(consumer, seconds=0.5, limit=500)
        found += [record for records in polled.values() for record in records if record.key == user_id.encode()]
    return found


@asynccontextmanager
async def _topic_from_now(settings: BrokerSettings) -> AsyncGenerator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(**connection_arguments(settings), enable_auto_commit=False)
    try:
        await consumer.start()
        # asking for a topic that the client has not seen yet makes it look
        partitions = consumer.partitions_for_topic(TOPIC) or set[int]()
        assigned = [TopicPartition(TOPIC, partition) for partition in sorted(partitions)]
        if not assigned:
            raise StepFailed(f"the topic {TOPIC} is not there")
        consumer.assign(assigned)
        await consumer.seek_to_end(*assigned)
        for partition in assigned:
            # the position is settled now, not at the first fetch, which comes after the story
            await consumer.position(partition)
        yield consumer
    except KafkaError as error:
        raise StepFailed(f"no Kafka at {settings.kafka_bootstrap_servers}: {error}") from None
    finally:
        await consumer.stop()


def _shown(body: Mapping[str, object], unshown: Collection[str]) -> str:
    return json.dumps({name: "..." if name in unshown else value for name, value in body.items()})
