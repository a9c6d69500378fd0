"""What only a real broker, the real relay and the real feed can show."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
import pytest
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from events.partitioning import partition_of
from muster.embedded.broker import EmbeddedBroker
from muster_subscriber import Poisoned, Subscription
from muster_subscriber.decoding import Record
from muster_subscriber.feed import ClientCredentials, Feed
from muster_subscriber.kafka import Broker
from muster_subscriber.source import Span, Topic
from muster_subscriber.sqlite import SqliteUsers
from runtime.settings import Settings
from tests.databases import PARTITIONS, MakeSettings
from tests.integration.subscriber.conftest import Follow, MakeTable, seen, subscription_to, truth, until_exact
from tests.logins import CLIENT_SECRET, make_client
from tests.plain_http import PLAIN
from tests.processes import Process, StartProcess
from tests.published import Published
from tests.tokens import authorized
from tests.topics import TopicRecord, make_anew, records_of, settled
from tests.waiting import aeventually

Owner = psycopg.Connection[dict[str, Any]]


@contextlib.asynccontextmanager
async def calling(process: Process) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=process.url, headers=authorized(), timeout=30, verify=PLAIN, trust_env=False
    ) as client:
        yield client


async def create(client: httpx.AsyncClient, number: int) -> str:
    answer = await client.post("/users", json={"email": f"user{number}@example.com"})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


async def live_a_life(client: httpx.AsyncClient, number: int) -> None:
    """One user who is changed, and mostly deleted."""
    location = await create(client, number)
    for name in ("One", "Two"):
        assert (await client.patch(location, json={"display_name": name})).is_success
    if number % 3:
        assert (await client.delete(location)).is_success


async def until_published(settings: Settings, count: int) -> None:
    async def published() -> bool:
        found = await asyncio.to_thread(records_of, settings, settings.events_topic)
        return len(found) >= count

    await aeventually(published, what=f"{count} events are published")


@pytest.mark.broker
async def test_bootstraps_under_concurrent_writes_end_with_what_the_log_has(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner, make_table: MakeTable, follow: Follow
) -> None:
    command = start_process("command_api").wait_until_ready()
    settings = make_settings(broker=True)
    tables = [make_table() for _ in range(4)]
    async with calling(command) as client:
        await create(client, 1000)

        async def write(writer: int) -> None:
            for number in range(12):
                await live_a_life(client, writer * 100 + number)

        writing = [asyncio.create_task(write(writer)) for writer in range(4)]
        for number, table in enumerate(tables):

            async def enough(least: int = 30 * number) -> bool:
                return len(truth(owner)) * 3 > least

            # each begins while the writers are further on, with little enough at a time to be overtaken
            await aeventually(enough)
            follow(settings, table, limit=5)
        await asyncio.gather(*writing)
    for table in tables:
        # who was created and deleted before the bootstrap came by need not be known to it
        await until_living(table, lambda: truth(owner))


async def until_living(table: SqliteUsers, expected: Callable[[], Mapping[str, tuple[int, bool]]]) -> None:
    async def exact() -> bool:
        living = {user_id: found for user_id, found in seen(table).items() if not found[1]}
        wanted = expected()
        return living == {user_id: found for user_id, found in wanted.items() if not found[1]} and all(
            wanted[user_id] == found for user_id, found in seen(table).items()
        )

    await aeventually(exact, what="the table is the truth")


def mirror(
    settings: Settings, topic: str, records: Iterable[TopicRecord], *, change: Mapping[int, bytes | None]
) -> None:
    """Copy records into another topic; `change` has values for some positions, None for what is lost."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    for record in records:
        value = change.get(record.position, orjson.dumps(record.value))
        if value is not None:
            headers: list[tuple[str, str | bytes | None]] = [*record.headers.items()]
            producer.produce(topic, key=record.key, value=value, headers=headers, partition=record.partition)
    assert producer.flush(30) == 0


def make_topic(settings: Settings) -> str:
    topic = f"{settings.events_topic}.lossy"
    admin: Any = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    settled(admin.create_topics([NewTopic(topic, settings.topic_partitions, 1)]))
    return topic


@pytest.mark.broker
async def test_what_the_topic_lost_or_spoiled_comes_from_the_real_feed(
    start_process: StartProcess, make_settings: MakeSettings, owner: Owner, table: SqliteUsers, follow: Follow
) -> None:
    command = start_process("command_api").wait_until_ready()
    query = start_process("query_api").wait_until_ready()
    settings = make_settings(broker=True)
    lossy = make_topic(settings)
    async with calling(command) as client, httpx.AsyncClient(verify=PLAIN, trust_env=False) as plain:
        ada = await create(client, 1)
        await until_published(settings, 1)
        token = ClientCredentials(command.url, str(make_client(owner, "events:read")), CLIENT_SECRET, client=plain)
        subscription = follow(
            settings, table, topic=lossy, feed=Feed(query.url, token, client=plain), on_poison="deliver"
        )

        async def following() -> bool:
            return subscription.counts.bootstraps == settings.topic_partitions

        await aeventually(following)
        grace = await create(client, 2)
        for name in ("lost", "spoiled", "here"):
            for location in (ada, grace):
                assert (await client.patch(location, json={"display_name": name})).is_success
        await until_published(settings, 8)
        # of Grace even the creation, at position 2
        mirror(
            settings,
            lossy,
            records_of(settings, settings.events_topic),
            change={2: None, 3: None, 4: None, 5: b"{", 6: b"null"},
        )
        await until_exact(table, lambda: truth(owner))
    counts = subscription.counts
    assert (counts.gaps, counts.fetched, counts.missed, counts.poison) == (2, 5, 0, 2)
    assert table.connection.execute("SELECT version, applied FROM users").fetchall() == [(4, 4), (4, 4)]


@pytest.mark.broker
async def test_poison_stops_a_subscription_that_was_not_told_what_to_do(
    make_settings: MakeSettings, table: SqliteUsers
) -> None:
    published = Published(make_settings(broker=True))
    [ada] = published.create()
    published.change(ada.id, display_name="Ada")
    published.flush()
    settings = published.settings
    mirrored = make_topic(settings)
    mirror(settings, mirrored, records_of(settings, settings.events_topic), change={2: b"secret"})
    with pytest.raises(Poisoned, match=r"at offset 1: the data is not JSON$"):
        await run_through(settings, table, topic=mirrored)


async def run_through(settings: Settings, table: SqliteUsers, **options: Any) -> None:  # noqa: ANN401 - of subscribe
    async with subscription_to(settings, table, **options) as subscription:
        async for change in subscription:
            table.apply([change], change.bookmark)


@pytest.mark.broker
async def test_topics_made_anew_under_a_subscription_are_noticed(
    make_settings: MakeSettings, table: SqliteUsers, follow: Follow
) -> None:
    published = Published(make_settings(broker=True))
    people = published.create(12)
    published.flush()
    subscription = follow(published.settings, table)
    await until_exact(table, lambda: dict(published.versions))
    make_anew(published.settings)

    async def noticed() -> bool:
        return subscription.counts.lost_places > 0

    await aeventually(noticed, what="the topic is another")
    # as the relay does it: all of the log, in order
    published.repeat(list(published.sent))
    published.change(people[0].id, display_name="after")
    published.delete(people[1].id)
    published.flush()
    await until_exact(table, lambda: dict(published.versions))
    assert table.connection.execute("SELECT count(*) FROM users WHERE applied <> version").fetchone() == (0,)


@pytest.mark.broker
async def test_topics_made_anew_under_a_bootstrap_are_noticed(
    make_settings: MakeSettings, table: SqliteUsers, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = Published(make_settings(broker=True))
    people = published.create(12)
    published.flush()
    last = max(partition_of(user.id, PARTITIONS) for user in people)
    read, remade = Broker.read, asyncio.Event()

    async def late(
        broker: Broker, topic: Topic, partition: int, span: Span, *, limit: int
    ) -> AsyncGenerator[Sequence[Record]]:
        if (topic, partition) == (Topic.EVENTS, last) and not remade.is_set():
            # its snapshot has been applied, and where its events end has been asked
            await asyncio.to_thread(make_anew, published.settings)
            remade.set()
        async for records in read(broker, topic, partition, span, limit=limit):
            yield records

    monkeypatch.setattr(Broker, "read", late)
    subscription = follow(published.settings, table)
    await asyncio.wait_for(remade.wait(), 30)

    async def noticed() -> bool:
        return subscription.counts.lost_places > 0

    await aeventually(noticed, what="the topic is another")
    published.repeat(list(published.sent))
    published.delete(people[0].id)
    published.flush()
    await until_exact(table, lambda: dict(published.versions))


@pytest.mark.broker
async def test_whoever_was_away_longer_than_the_retention_gets_the_state_anew(
    make_settings: MakeSettings, table: SqliteUsers
) -> None:
    published = Published(make_settings(broker=True))
    people = published.create(12)
    published.flush()
    async with subscription_to(published.settings, table) as subscription:
        await apply_until(subscription, table, lambda: subscription.counts.bootstraps == PARTITIONS)
    for user in people[:4]:
        published.delete(user.id)
    published.change(people[5].id, display_name="Ada")
    published.flush()
    remove_all_records(published.settings)
    # where nothing was published since, nothing is missing
    truncated = len({partition_of(user.id, PARTITIONS) for user in [*people[:4], people[5]]})
    async with subscription_to(published.settings, table) as subscription:
        await apply_until(subscription, table, lambda: subscription.counts.bootstraps == truncated)
        assert subscription.counts.lost_places == truncated
    assert seen(table) == published.versions
    # and from there it goes on
    published.change(people[6].id, display_name="Grace")
    published.flush()
    async with subscription_to(published.settings, table) as subscription:
        await apply_until(subscription, table, lambda: seen(table) == published.versions)
        assert (subscription.counts.bootstraps, subscription.counts.delivered) == (0, 1)


async def apply_until(subscription: Subscription, table: SqliteUsers, enough: Callable[[], bool]) -> None:
    async def watch() -> None:
        async def reached() -> bool:
            return enough()

        await aeventually(reached)
        subscription.stop()

    watching = asyncio.create_task(watch())
    async for batch in subscription.batches():
        table.apply(batch.changes, batch.bookmark)
    await watching


def remove_all_records(settings: Settings) -> None:
    """From the events topic, as its retention would."""
    admin: Any = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    partitions = range(settings.topic_partitions)
    settled(admin.delete_records([TopicPartition(settings.events_topic, one, OFFSET_END) for one in partitions]))


async def test_a_broker_that_was_away_is_gone_on_with(
    make_settings: MakeSettings, table: SqliteUsers, follow: Follow, tmp_path: Path
) -> None:
    with EmbeddedBroker(tmp_path / "broker") as broker:
        settings = make_settings(broker=False, kafka_bootstrap_servers=broker.bootstrap_servers)
        published = Published(settings)
        [ada] = published.create()
        published.flush()
        subscription = follow(settings, table)
        await until_exact(table, lambda: dict(published.versions))
        broker.stop()
        published.change(ada.id, display_name="while it was away")
        broker.start()
        await asyncio.to_thread(published.flush)
        await until_exact(table, lambda: dict(published.versions))
        assert subscription.counts.lost_places == 0


@pytest.mark.broker
async def test_a_subscription_that_waits_can_be_stopped(make_settings: MakeSettings, table: SqliteUsers) -> None:
    published = Published(make_settings(broker=True))
    published.create(3)
    published.flush()
    async with subscription_to(published.settings, table) as subscription:
        stored = 0
        async for change in subscription:
            table.apply([change], change.bookmark)
            stored += 1
            if stored == 3:
                asyncio.get_running_loop().call_soon(subscription.stop)
    assert seen(table) == published.versions


async def test_a_broker_that_is_not_there_does_not_keep_one_from_stopping(
    make_settings: MakeSettings, table: SqliteUsers
) -> None:
    async with subscription_to(make_settings(broker=False), table) as subscription:
        waiting = asyncio.ensure_future(anext(aiter(subscription.batches())))

        async def tried() -> bool:
            return subscription.counts.retries > 0

        await aeventually(tried)
        subscription.stop()
        with pytest.raises(StopAsyncIteration):
            await waiting
