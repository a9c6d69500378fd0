"""The recipe of the subscriber's README, run as it stands there."""

import re
from typing import Any

import psycopg
import pytest

from muster_subscriber import Moved
from muster_subscriber.testing import MusterUsers
from tests.processes import ROOT

README = (ROOT / "subscriber" / "README.md").read_text()


def block(language: str, holding: str) -> str:
    [found] = [one for one in re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL) if holding in one]
    return found


async def bring_up(users: MusterUsers, people: Any) -> int:  # noqa: ANN401 - the recipe's class
    async with users.subscription(people, limit=7) as subscription:
        async for batch in subscription.batches():
            await people.apply(batch)
    return subscription.counts.delivered


async def test_the_recipe_for_postgres_keeps_its_word(database_url: str, muster_users: MusterUsers) -> None:
    recipe: dict[str, Any] = {}
    exec(block("python", "class People"), recipe)  # noqa: S102 - our own page
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(block("sql", "people_bookmarks").encode())
        people = recipe["People"](connection)
        created = [muster_users.create() for _ in range(30)]
        assert await bring_up(muster_users, people) == 30
        for user_id in created[:5]:
            muster_users.delete(user_id)
        muster_users.update(created[6], email="new@example.com")
        muster_users.repeat(created[6])
        assert await bring_up(muster_users, people) == 6
        assert await bring_up(muster_users, people) == 0
        cursor = await connection.execute("SELECT id, version FROM people WHERE NOT deleted")
        assert dict(await cursor.fetchall()) == muster_users.living
        cursor = await connection.execute("SELECT email FROM people WHERE version = 2 ORDER BY email")
        assert await cursor.fetchall() == [("new@example.com",), *[(None,)] * 5]

        muster_users.update(created[7])
        async with muster_users.subscription(people) as first, muster_users.subscription(people) as second:
            batch = await anext(first.batches())
            same = await anext(second.batches())
            await people.apply(batch)
            with pytest.raises(Moved):
                await people.apply(same)
