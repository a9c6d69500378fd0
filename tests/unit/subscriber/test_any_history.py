"""Whatever the topics repeat, lose and spoil, and wherever the application ends: the table is the truth."""

import asyncio
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from muster_subscriber.sqlite import SqliteUsers
from muster_subscriber.testing import MusterUsers

NUMBERS = st.integers(0, 30)
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["create", "update", "delete", "erase", "repeat", "lose", "poison", "foreign"]), NUMBERS
        ),
        st.tuples(st.sampled_from(["truncate", "compact", "anew", "all"]), st.just(0)),
        # an application that ends after so many changes, stored or not
        st.tuples(st.sampled_from(["end", "end unstored"]), st.integers(1, 5)),
    ),
    max_size=60,
)


def step(users: MusterUsers, people: list[UUID], what: str, number: int) -> None:  # noqa: C901 - a table
    living = [person for person in people if person in users.living]
    chosen = living[number % len(living)] if living else None
    match what:
        case "create":
            people.append(users.create())
        case "update" if chosen:
            users.update(chosen, display_name=str(number))
        case "delete" if chosen:
            users.delete(chosen)
        case "erase" if chosen:
            users.erase(chosen)
        case "repeat" if people:
            person = people[number % len(people)]
            users.repeat(person, version=1 + number % users.version(person))
        case "lose" if chosen:
            with users.losing():
                users.update(chosen, display_name="lost")
        case "poison" if chosen:
            users.poison(chosen)
        case "foreign":
            users.put(b"{}", key=str(number).encode())
        case "truncate":
            users.truncate()
        case "compact":
            users.compact()
        case "anew":
            users.make_anew()
        case _:
            pass


async def follow(users: MusterUsers, table: SqliteUsers, *, most: int | None = None, stored: bool = True) -> None:
    options: dict[str, Any] = {"feed": users.feed, "on_poison": "deliver", "limit": 3}
    subscription = users.subscription(table, **options)
    left = most
    async with subscription:
        async for batch in subscription.batches():
            left = None if left is None else left - 1
            if stored or left != 0:
                table.apply(batch.changes, batch.bookmark, batch.poison)
            if left == 0:
                # what the last one's transaction was rolled back for ends the application
                return
    assert subscription.counts.missed == 0


async def run(steps: list[tuple[str, int]]) -> None:
    users, table, people = MusterUsers(), SqliteUsers(":memory:"), list[UUID]()
    try:
        for what, number in [*steps, ("settle", 0)]:
            if what in {"end", "end unstored"}:
                await follow(users, table, most=number, stored=what == "end")
            elif what == "all":
                await follow(users, table)
            else:
                step(users, people, what, number)
        # what was lost shows when the next version comes
        for person in users.living:
            users.update(person, display_name="at last")
        await follow(users, table)
        rows = table.connection.execute("SELECT id, version FROM users WHERE NOT deleted").fetchall()
        assert {UUID(user_id): version for user_id, version in rows} == users.living
        records = table.connection.execute("SELECT record ->> 'display_name' FROM users WHERE NOT deleted").fetchall()
        assert {name for (name,) in records} <= {"at last"}
        # nothing was applied twice: of nobody more often than there were versions, and one for being gone
        more = table.connection.execute("SELECT id, applied, version FROM users WHERE applied > version + deleted")
        assert more.fetchall() == []
    finally:
        table.close()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(STEPS)
def test_the_table_is_the_truth(steps: list[tuple[str, int]]) -> None:
    asyncio.run(run(steps))
