import math
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from events.partitioning import partition_of
from query_api.app import create_app
from query_api.projection_routes import ProjectionBody
from tests.apps import client_of
from tests.calls import codes, create
from tests.databases import PARTITIONS, MakeSettings, as_role
from tests.proxy import Proxy, proxy_to
from tests.read_model import Owner, ReadModel
from tests.waiting import aeventually

Record = dict[str, Any]


async def projection(queries: httpx.AsyncClient) -> Record:
    answer = await queries.get("/projection")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    ProjectionBody.model_validate(answer.json(), extra="forbid")
    return answer.json()


async def judged(queries: httpx.AsyncClient) -> tuple[str, str | None]:
    found = await projection(queries)
    return found["state"], found["why"]


async def write(commands: httpx.AsyncClient, count: int) -> list[Record]:
    return [await create(commands, f"user{number}@example.com") for number in range(count)]


def all_published(model: ReadModel, position: int, **fields: Any) -> None:  # noqa: ANN401 - as publish takes them
    for partition in range(PARTITIONS):
        model.publish(partition, offset=position, position=position, **fields)


def all_applied(model: ReadModel, position: int) -> None:
    for partition in range(PARTITIONS):
        model.stand(partition, offset=position, position=position)


def metrics_of(text: str) -> dict[str, float]:
    """Samples of the projection by name and labels."""
    return {
        "".join([sample.name.removeprefix("muster_projection_"), *(f" {value}" for value in sample.labels.values())]): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("muster_projection_")
    }


async def test_a_model_that_has_everything_is_live(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    await write(commands, 3)
    all_published(model, 3)
    all_applied(model, 3)
    model.beat(rate=12.5, ago=-600)
    found = await projection(queries)
    assert (found["state"], found["why"]) == ("live", None)
    assert (found["head"], found["published"], found["applied"]) == (3, 3, 3)
    assert (found["lag_events"], found["lag_seconds"], found["rate"]) == (0, 0, 12.5)
    assert found["parked"] == {"projector": 0, "relay": 0, "users": 0, "records": 0}
    assert found["rebuild"] is None
    assert [one["projector"] for one in found["partitions"]] == ["one"] * PARTITIONS
    assert [one["partition"] for one in found["partitions"]] == list(range(PARTITIONS))
    assert [one["instance"] for one in found["projectors"]] == ["one"]
    assert found["moved_at"].endswith("Z")
    assert 0 <= (datetime.fromisoformat(found["checked_at"]) - datetime.fromisoformat(found["moved_at"])).seconds < 60


async def test_an_empty_log_with_a_projector_is_live(queries: httpx.AsyncClient, model: ReadModel) -> None:
    assert model
    found = await projection(queries)
    assert (found["state"], found["head"], found["applied"], found["moved_at"]) == ("live", 0, 0, None)


async def test_without_a_projector_it_is_stalled(queries: httpx.AsyncClient, model: ReadModel) -> None:
    model.die()
    state, why = await judged(queries)
    assert state == "stalled"
    assert str(why).startswith("no projector is running: one was last seen 4")


async def test_the_lag_is_exact_while_a_partition_that_was_idle_has_just_got_an_event(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    """What it had reached before is not in any row any more: what it lacks is looked for in the log."""
    users = await write(commands, 9)
    numbers = [partition_of(user["id"], PARTITIONS) for user in users]
    last = numbers[-1]
    all_applied(model, 9)
    # the last user's partition has applied nothing of theirs, and stands where it was at the beginning
    model.stand(last, offset=0, position=0)
    all_published(model, 9)
    lacking = numbers.index(last) + 1
    found = await projection(queries)
    assert found["partitions"][last]["applied"] == 0
    assert found["partitions"][last]["reached"] == found["applied"] == lacking - 1
    assert found["lag_events"] == 9 - (lacking - 1)
    assert found["lag_seconds"] > 0


async def test_partitions_of_which_the_log_has_nothing_more_have_reached_its_end(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    user = await create(commands)
    home = partition_of(user["id"], PARTITIONS)
    model.stand(home, offset=1, position=1)
    found = await projection(queries)
    assert [one["reached"] for one in found["partitions"]] == [1] * PARTITIONS
    # nothing was published, and yet the model lacks nothing
    assert (found["state"], found["published"], found["lag_events"]) == ("live", 0, 0)


async def test_offsets_of_another_epoch_say_nothing(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    user = await create(commands)
    home = partition_of(user["id"], PARTITIONS)
    model.stand(home, offset=7, position=0, epoch=0)
    model.publish(home, offset=1, position=1, epoch=1)
    assert (await projection(queries))["applied"] == 0
    model.stand(home, offset=1, position=0, epoch=1)
    assert (await projection(queries))["applied"] == 1


async def test_a_relay_that_publishes_nothing_is_stalled(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    await write(commands, 2)
    model.age_log(20)
    state, why = await judged(queries)
    assert state == "stalled"
    assert str(why).startswith("the relay publishes nothing: an event has waited for 2")
    all_published(model, 1)
    all_applied(model, 1)
    assert (await judged(queries))[0] == "catching-up"


async def test_a_projector_that_does_not_move_is_stalled(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    user = await create(commands)
    home = partition_of(user["id"], PARTITIONS)
    model.age_log(20)
    all_published(model, 1)
    all_applied(model, 1)
    model.stand(home, offset=0, position=0, ago=30)
    assert await judged(queries) == ("stalled", f"partition {home} stood still for 10 s with events waiting")
    model.beat(state="halted", problem="the topic holds position 9", ago=-600)
    assert await judged(queries) == ("stalled", "projector one is halted: the topic holds position 9")


async def test_users_who_are_held_back_are_told(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    ada, bob, eve = [user["id"] for user in await write(commands, 3)]
    all_published(model, 3)
    all_applied(model, 3)
    model.park(ada)
    model.park(bob)
    model.park_in_relay(bob)
    # not of the live table
    model.park(eve, build=1)
    found = await projection(queries)
    assert found["state"] == "parked 2"
    assert found["parked"] == {"projector": 2, "relay": 1, "users": 2, "records": 0}


async def test_a_rebuild_is_told(queries: httpx.AsyncClient, model: ReadModel) -> None:
    model.build("indexing")
    found = await projection(queries)
    assert (found["state"], found["why"]) == ("rebuilding", "the new table is in its phase of indexing")
    assert (found["rebuild"]["running"], found["rebuild"]["phase"], found["rebuild"]["shape"]) == (True, "indexing", 2)


async def test_a_rebuild_that_was_left_unfinished_is_no_state(queries: httpx.AsyncClient, model: ReadModel) -> None:
    model.build("comparing", running=False)
    found = await projection(queries)
    assert found["state"] == "live"
    assert (found["rebuild"]["running"], found["rebuild"]["phase"]) == (False, "comparing")


async def test_the_log_says_how_many_partitions_there_are(
    queries: httpx.AsyncClient, model: ReadModel, owner: Owner
) -> None:
    assert model
    owner.execute("INSERT INTO log.partitioning (partitions) VALUES (5)")
    assert len((await projection(queries))["partitions"]) == 5


async def test_what_another_topic_has_does_not_count(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    await create(commands)
    elsewhere = ReadModel(model.owner, "another.topic")
    all_published(elsewhere, 1)
    assert (await projection(queries))["published"] == 0


async def test_the_same_is_told_to_prometheus(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    user = (await write(commands, 4))[-1]
    home = partition_of(user["id"], PARTITIONS)
    all_published(model, 4)
    all_applied(model, 4)
    model.park(user["id"])
    model.beat(rate=2.5, ago=-600)

    async def shown() -> dict[str, float]:
        found = metrics_of((await queries.get("/metrics")).text)
        return found if found.get("head_position") == 4 and found["state parked"] else {}

    found = await aeventually(shown, what="the metrics are fresh", timeout=10)
    assert found["up"] == 1
    assert (found[f"published_position {home}"], found[f"applied_position {home}"]) == (4, 4)
    assert (found["lag_events"], found["lag_seconds"], found["rate"]) == (0, 0, 2.5)
    assert (found["parked projector"], found["parked relay"], found["parked records"]) == (1, 0, 0)
    states = {name: value for name, value in found.items() if name.startswith("state ")}
    assert states == {
        "state live": 0,
        "state catching-up": 0,
        "state stalled": 0,
        "state rebuilding": 0,
        "state parked": 1,
    }
    assert found["checked_timestamp_seconds"] >= found["last_moved_timestamp_seconds"] > 1.7e9


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    async with proxy_to(database_url) as made:
        yield made


async def test_what_cannot_be_checked_is_never_called_healthy(
    proxy: tuple[Proxy, str], make_settings: MakeSettings, model: ReadModel
) -> None:
    way, url = proxy
    all_published(model, 0)
    settings = make_settings("muster_query", database_url=as_role(url, "muster_query"), read_timeout=1)
    async with client_of(create_app(settings)) as queries:

        async def up() -> float:
            return metrics_of((await queries.get("/metrics")).text).get("up", 0)

        await aeventually(up, what="it is checked", timeout=10)
        # a token that was never seen before could not be verified without the database
        assert (await judged(queries))[0] == "live"
        way.cut()
        await way.refuse()

        async def down() -> bool:
            return await up() == 0

        await aeventually(down, what="the check fails", timeout=10)
        found = metrics_of((await queries.get("/metrics")).text)
        assert found.pop("up") == 0
        assert found
        assert all(math.isnan(value) for value in found.values()), found
        assert codes(await queries.get("/projection"), 503) == ["unavailable"]
        await way.start()
        await aeventually(up, what="it is checked again", timeout=10)


async def test_a_database_that_is_not_migrated_is_not_called_healthy(
    queries: httpx.AsyncClient, model: ReadModel, owner: Owner
) -> None:
    assert model
    owner.execute("REVOKE SELECT ON read_model.projectors FROM muster_query")
    assert codes(await queries.get("/projection"), 503) == ["unavailable"]
