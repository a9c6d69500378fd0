"""Why a read that wanted a position is not answered: the model lags, nobody moves it on, or the user is held back."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from events.partitioning import partition_of
from tests.calls import codes, create, errors
from tests.databases import PARTITIONS
from tests.read_model import Owner, ReadModel

Record = dict[str, Any]


async def asked(queries: httpx.AsyncClient, path: str, position: int, *, wait: int = 0) -> httpx.Response:
    return await queries.get(path, headers={"Min-Position": str(position), "Prefer": f"wait={wait}"})


def home(user: Record) -> int:
    return partition_of(user["id"], PARTITIONS)


async def write(commands: httpx.AsyncClient, count: int) -> list[Record]:
    """Users of positions 1, 2, ..."""
    return [await create(commands, f"user{number}@example.com") for number in range(count)]


async def rename(commands: httpx.AsyncClient, user: Record, name: str) -> int:
    """The position of the change."""
    answer = await commands.patch(f"/users/{user['id']}", json={"display_name": name})
    assert answer.status_code == 200, answer.text
    return int(answer.headers["event-position"])


def all_applied(model: ReadModel, position: int) -> None:
    for partition in range(PARTITIONS):
        model.stand(partition, offset=position, position=position)


async def test_without_a_projector_the_answer_says_so(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    user = (await write(commands, 2))[1]
    all_applied(model, 1)
    model.die()
    for path in ("/users", f"/users/{user['id']}"):
        answer = await asked(queries, path, 2)
        assert [(error["code"], error["parameter"]) for error in errors(answer, 503)] == [
            ("projector_stopped", "Min-Position")
        ]
        assert answer.headers["retry-after"] == "5"
        told = answer.json()
        assert (told["wanted"], told["reached"], told["lag_events"]) == (2, 1, 1)
        assert 0 < told["lag_seconds"] < 60
        assert told["detail"].startswith(f"No projector is running for partition {home(user)}. The read model is at")


async def test_what_counts_is_a_projector_of_the_partitions_that_lag(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    user = await create(commands)
    others = [partition for partition in range(PARTITIONS) if partition != home(user)]
    all_applied(model, 0)
    model.beat(partitions=others, ago=-600)
    assert codes(await asked(queries, "/users", 1), 503) == ["projector_stopped"]
    model.beat("two", partitions=[home(user)], ago=-600)
    assert codes(await asked(queries, "/users", 1), 503) == ["not_fresh_yet"]
    model.die("one")
    assert codes(await asked(queries, f"/users/{user['id']}", 1), 503) == ["not_fresh_yet"]


async def test_a_fresh_model_is_read_whatever_the_projectors_do(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    await create(commands)
    all_applied(model, 1)
    model.die()
    assert (await asked(queries, "/users", 1)).status_code == 200


async def test_a_position_that_the_log_does_not_have_is_nobodys_fault(
    queries: httpx.AsyncClient, model: ReadModel
) -> None:
    model.die()
    assert codes(await asked(queries, "/users", 1), 503) == ["not_fresh_yet"]


async def test_what_was_readable_stays_readable_when_its_partition_gets_more(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    """An idle partition's own row is old: once it is not at the topic's end any more, the log tells what it has."""
    users = await write(commands, 6)
    idle = home(users[-1])
    mine = [position for position, user in enumerate(users, 1) if home(user) == idle]
    for partition in range(PARTITIONS):
        model.stand(partition, offset=6, position=6)
        model.publish(partition, offset=6, position=6)
    # nothing of this partition but its last event is missing
    model.stand(idle, offset=len(mine) - 1, position=0 if len(mine) == 1 else mine[-2])
    model.publish(idle, offset=len(mine), position=6)
    assert (await asked(queries, "/users", 5)).status_code == 200
    assert codes(await asked(queries, "/users", 6), 503) == ["not_fresh_yet"]
    began = time.monotonic()
    assert (await asked(queries, "/users", 5, wait=20)).status_code == 200
    assert time.monotonic() - began < 5


async def test_offsets_of_another_epoch_are_not_compared(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    user = await create(commands)
    all_applied(model, 0)
    model.stand(home(user), offset=9, position=0, epoch=0)
    model.publish(home(user), offset=1, position=1, epoch=1)
    assert codes(await asked(queries, f"/users/{user['id']}", 1), 503) == ["not_fresh_yet"]
    model.stand(home(user), offset=1, position=0, epoch=1)
    assert codes(await asked(queries, f"/users/{user['id']}", 1), 404) == ["user_not_found"]


@pytest.mark.parametrize("by", ["projector", "relay"])
async def test_a_user_who_is_held_back_is_told_at_once(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel, by: str
) -> None:
    user = await create(commands)
    changed = await rename(commands, user, "Ada")
    later = await rename(commands, user, "Ada Lovelace")
    all_applied(model, later)
    model.hold_versions({user["id"]: 1})
    park = model.park_in_relay if by == "relay" else model.park
    park(user["id"], version=2)
    path = f"/users/{user['id']}"
    for position in (changed, later):
        began = time.monotonic()
        answer = await asked(queries, path, position, wait=20)
        assert time.monotonic() - began < 5
        assert codes(answer, 503) == ["user_parked"]
        assert answer.headers["retry-after"] == "60"
        assert (answer.json()["wanted"], answer.json()["held_back_from"]) == (position, changed)
    # what they had before is there
    assert (await asked(queries, path, changed - 1)).json()["version"] == 1
    assert (await queries.get(path)).json()["version"] == 1


async def test_a_user_who_is_held_back_while_somebody_waits_is_told_then(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    user = await create(commands)
    all_applied(model, 0)
    waiting = [asyncio.create_task(asked(queries, path, 1, wait=20)) for path in ("/users", f"/users/{user['id']}")]
    await asyncio.sleep(0.3)
    assert not any(one.done() for one in waiting)
    with model.owner.transaction():
        model.park(user["id"])
        all_applied(model, 1)
    for answer in await asyncio.gather(*waiting):
        assert codes(answer, 503) == ["user_parked"]


async def test_a_list_that_wants_ones_own_write_is_refused_when_that_is_held_back(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    ada, bob = await write(commands, 2)
    changed = await rename(commands, ada, "Ada")
    all_applied(model, changed)
    model.hold_versions({ada["id"]: 1, bob["id"]: 1})
    model.park(ada["id"], version=2)
    assert codes(await asked(queries, "/users", changed), 503) == ["user_parked"]
    # another's write: the list has it, and says that it lacks something else
    later = await rename(commands, bob, "Bob")
    all_applied(model, later)
    answer = await asked(queries, "/users", later)
    assert (answer.status_code, answer.headers["parked-users"]) == (200, "1")
    # before anybody was held back, the list is whole
    answer = await asked(queries, "/users", changed - 1)
    assert (answer.status_code, answer.headers.get("parked-users")) == (200, None)


async def test_a_list_counts_a_user_once_whoever_holds_them_back(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    ada, bob, eve = await write(commands, 3)
    all_applied(model, 3)
    model.park(ada["id"])
    model.park_in_relay(ada["id"])
    model.park_in_relay(bob["id"])
    assert (await asked(queries, "/users", 3)).headers["parked-users"] == "2"
    assert "parked-users" not in (await asked(queries, f"/users/{eve['id']}", 3)).headers


async def test_a_list_is_late_before_it_is_incomplete(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    ada, _ = await write(commands, 2)
    all_applied(model, 1)
    model.park(ada["id"])
    assert codes(await asked(queries, "/users", 2), 503) == ["not_fresh_yet"]


async def test_what_an_operator_gave_up_holds_nobody_back(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    ada = await create(commands)
    changed = await rename(commands, ada, "Ada")
    later = await rename(commands, ada, "Ada Lovelace")
    all_applied(model, later)
    model.hold_versions({ada["id"]: 1})
    model.park(ada["id"], version=2)
    model.discard(changed)
    assert (await asked(queries, f"/users/{ada['id']}", changed)).status_code == 200
    assert codes(await asked(queries, f"/users/{ada['id']}", later), 503) == ["user_parked"]


async def test_what_a_build_sets_aside_holds_nobody_back_in_the_live_table(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel, owner: Owner
) -> None:
    ada = await create(commands)
    all_applied(model, 1)
    model.park(ada["id"], build=model.build())
    owner.execute(
        "INSERT INTO read_model.parked (source, partition, topic_offset, reason) VALUES ('topic', 0, 7, 'no event')"
    )
    answer = await asked(queries, "/users", 1)
    assert (answer.status_code, answer.headers.get("parked-users")) == (200, None)


async def test_whom_the_relay_holds_back_is_readable_if_the_model_has_them_from_the_log(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel
) -> None:
    ada = await create(commands)
    changed = await rename(commands, ada, "Ada")
    all_applied(model, changed)
    model.hold_versions({ada["id"]: 2})
    model.park_in_relay(ada["id"], version=2)
    assert (await asked(queries, f"/users/{ada['id']}", changed)).status_code == 200


async def test_the_log_says_in_how_many_partitions_users_are(
    queries: httpx.AsyncClient, commands: httpx.AsyncClient, model: ReadModel, owner: Owner
) -> None:
    owner.execute("INSERT INTO log.partitioning (partitions) VALUES (5)")
    user = await create(commands)
    for partition in range(5):
        model.stand(partition, offset=0, position=0)
    model.beat(partitions=range(5), ago=-600)
    assert codes(await asked(queries, f"/users/{user['id']}", 1), 503) == ["not_fresh_yet"]
    model.stand(partition_of(user["id"], 5), offset=1, position=1)
    assert codes(await asked(queries, f"/users/{user['id']}", 1), 404) == ["user_not_found"]
