"""Bootstrap, guard, loss and poison, over topics in memory: the way of production but for the broker."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from muster_subscriber import Bookmark, Change, Counts, Kind, Lost, Moved, Poisoned
from muster_subscriber.sqlite import SqliteUsers
from muster_subscriber.testing import MusterUsers


async def bring_up(users: MusterUsers, table: SqliteUsers, **options: Any) -> tuple[list[Change], Counts]:  # noqa: ANN401 - of a subscription
    """Apply all that there is, in batches; what was told, and the counts."""
    told: list[Change] = []
    subscription = users.subscription(table, **options)
    async with subscription:
        async for batch in subscription.batches():
            table.apply(batch.changes, batch.bookmark, batch.poison)
            told += batch.changes
    return told, subscription.counts


async def begin(users: MusterUsers, table: SqliteUsers, *, stop_after: int, limit: int) -> None:
    """Apply so many changes, one at a time, and end in the middle."""
    async with users.subscription(table, limit=limit) as subscription:
        done = 0
        async for change in subscription:
            table.apply([change], change.bookmark)
            done += 1
            if done == stop_after:
                break


async def one_by_one(users: MusterUsers, table: SqliteUsers, told: list[Change], **options: Any) -> None:  # noqa: ANN401 - likewise
    async with users.subscription(table, **options) as subscription:
        async for change in subscription:
            table.apply([change], change.bookmark)
            told.append(change)


def kinds(told: list[Change]) -> list[tuple[Kind, int]]:
    return [(change.kind, change.version) for change in told]


def living(table: SqliteUsers) -> Mapping[UUID, int]:
    rows = table.connection.execute("SELECT id, version FROM users WHERE NOT deleted")
    return {UUID(user_id): version for user_id, version in rows}


async def test_first_the_state_then_every_change(muster_users: MusterUsers, table: SqliteUsers) -> None:
    ada = muster_users.create(email="ada@example.com")
    muster_users.update(ada, display_name="Ada")
    muster_users.compact()
    told, _ = await bring_up(muster_users, table)
    assert kinds(told) == [(Kind.STATE, 2)]
    assert told[0].user is not None
    assert told[0].user.display_name == "Ada"

    muster_users.update(ada, display_name="Ada L.")
    grace = muster_users.create()
    muster_users.erase(ada)
    muster_users.delete(grace)
    told, counts = await bring_up(muster_users, table)
    assert kinds([one for one in told if one.user_id == ada]) == [(Kind.UPDATED, 3), (Kind.ERASED, 4)]
    assert kinds([one for one in told if one.user_id == grace]) == [(Kind.CREATED, 1), (Kind.DELETED, 2)]
    renamed = next(one for one in told if one.version == 3)
    assert (renamed.changes["display_name"].old, renamed.changes["display_name"].new) == ("Ada", "Ada L.")
    assert (counts.bootstraps, counts.gaps, counts.duplicates) == (0, 0, 0)
    assert living(table) == {}


async def test_one_change_at_a_time_each_with_its_bookmark(muster_users: MusterUsers, table: SqliteUsers) -> None:
    for _ in range(20):
        muster_users.update(muster_users.create())
    muster_users.compact()
    for stop_after in (7, 13, 100):
        # the next one goes on there
        await begin(muster_users, table, stop_after=stop_after, limit=5)
    assert living(table) == muster_users.living
    assert table.connection.execute("SELECT DISTINCT applied FROM users").fetchall() == [(1,)]
    assert (await bring_up(muster_users, table))[0] == []


async def test_what_was_not_stored_comes_again(muster_users: MusterUsers, table: SqliteUsers) -> None:
    muster_users.create()
    await bring_up(muster_users, table)
    muster_users.create()
    muster_users.create()
    async with muster_users.subscription(table) as subscription:
        async for _ in subscription:
            break
    told, _ = await bring_up(muster_users, table)
    assert kinds(told) == [(Kind.CREATED, 1), (Kind.CREATED, 1)]


async def test_a_bootstrap_that_ends_halfway_begins_anew_and_applies_nothing_twice(
    muster_users: MusterUsers, table: SqliteUsers
) -> None:
    people = [muster_users.create() for _ in range(30)]
    for number in (1, 2, 4):
        async with muster_users.subscription(table, limit=3) as subscription:
            batches = subscription.batches()
            for _ in range(number):
                batch = await anext(batches)
                table.apply(batch.changes, batch.bookmark)
        muster_users.update(people[number])
        muster_users.delete(people[-number])
    await bring_up(muster_users, table)
    assert living(table) == muster_users.living


async def test_duplicates_are_passed_over(muster_users: MusterUsers, table: SqliteUsers) -> None:
    ada = muster_users.create()
    await bring_up(muster_users, table)
    muster_users.update(ada)
    muster_users.repeat(ada)
    muster_users.repeat(ada, version=1)
    told, counts = await bring_up(muster_users, table)
    assert kinds(told) == [(Kind.UPDATED, 2)]
    assert (counts.duplicates, counts.delivered, counts.lost_places) == (2, 1, 0)
    # and are behind the bookmark
    assert (await bring_up(muster_users, table))[1].duplicates == 0


async def test_what_the_topic_lost_comes_from_the_feed_first(muster_users: MusterUsers, table: SqliteUsers) -> None:
    ada = muster_users.create()
    await bring_up(muster_users, table)
    with muster_users.losing():
        muster_users.update(ada, display_name="lost")
        muster_users.update(ada, display_name="lost too")
    muster_users.update(ada, display_name="here")
    told, counts = await bring_up(muster_users, table, feed=muster_users.feed)
    assert kinds(told) == [(Kind.UPDATED, 2), (Kind.UPDATED, 3), (Kind.UPDATED, 4)]
    assert (counts.gaps, counts.fetched, counts.missed) == (1, 2, 0)


async def test_an_end_between_what_was_fetched_loses_nothing(muster_users: MusterUsers, table: SqliteUsers) -> None:
    ada = muster_users.create()
    await bring_up(muster_users, table)
    with muster_users.losing():
        muster_users.update(ada)
        muster_users.update(ada)
    muster_users.update(ada)
    told: list[Change] = []
    for _ in range(3):
        async with muster_users.subscription(table, feed=muster_users.feed) as subscription:
            async for change in subscription:
                table.apply([change], change.bookmark)
                told.append(change)
                break
    assert [change.version for change in told] == [2, 3, 4]


async def test_without_a_feed_the_newer_state_says_what_was_missed(
    muster_users: MusterUsers, table: SqliteUsers
) -> None:
    ada = muster_users.create()
    await bring_up(muster_users, table)
    with muster_users.losing():
        muster_users.update(ada)
    muster_users.update(ada)
    with pytest.raises(Lost) as lost:
        await bring_up(muster_users, table, strict=True)
    assert (lost.value.user_id, lost.value.versions) == (ada, range(2, 3))
    told, counts = await bring_up(muster_users, table)
    assert [(change.version, change.missed) for change in told] == [(3, range(2, 3))]
    assert (counts.gaps, counts.missed) == (1, 1)


async def test_versions_that_come_the_wrong_way_round_are_put_right(
    muster_users: MusterUsers, table: SqliteUsers
) -> None:
    ada = muster_users.create()
    await bring_up(muster_users, table)
    with muster_users.losing():
        muster_users.update(ada)
    muster_users.update(ada)
    muster_users.repeat(ada, version=2)
    told, counts = await bring_up(muster_users, table, feed=muster_users.feed)
    assert kinds(told) == [(Kind.UPDATED, 2), (Kind.UPDATED, 3)]
    assert counts.duplicates == 1


async def test_a_user_whose_creation_was_lost_is_fetched_whole(muster_users: MusterUsers, table: SqliteUsers) -> None:
    await bring_up(muster_users, table)
    with muster_users.losing():
        ada = muster_users.create()
    muster_users.update(ada)
    told, _ = await bring_up(muster_users, table, feed=muster_users.feed)
    assert kinds(told) == [(Kind.CREATED, 1), (Kind.UPDATED, 2)]


async def test_poison_stops_where_it_is_and_says_no_value(muster_users: MusterUsers, table: SqliteUsers) -> None:
    ada = muster_users.create()
    await bring_up(muster_users, table)
    muster_users.update(ada)
    muster_users.poison(ada, b'{"user": "secret"}')
    for expected in ([(Kind.UPDATED, 2)], []):
        told: list[Change] = []
        with pytest.raises(Poisoned, match=r"^events-\d at offset 2: user is no object$"):
            await one_by_one(muster_users, table, told)
        assert kinds(told) == expected


async def test_poison_can_be_put_aside_and_the_user_is_still_guarded(
    muster_users: MusterUsers, table: SqliteUsers
) -> None:
    ada, grace = muster_users.create(), muster_users.create()
    await bring_up(muster_users, table)
    muster_users.poison(ada)
    muster_users.update(grace)
    told, counts = await bring_up(muster_users, table, feed=muster_users.feed, on_poison="deliver")
    assert kinds(told) == [(Kind.UPDATED, 2)]
    assert counts.poison == 1
    assert table.connection.execute("SELECT reason FROM put_aside").fetchall() == [("the data is not JSON",)]
    muster_users.update(ada)
    told, counts = await bring_up(muster_users, table, feed=muster_users.feed, on_poison="deliver")
    assert kinds(told) == [(Kind.UPDATED, 2), (Kind.UPDATED, 3)]
    assert counts.poison == 0
    assert living(table) == muster_users.living


def test_poison_is_put_aside_in_batches_alone(muster_users: MusterUsers, table: SqliteUsers) -> None:
    async def ask() -> None:
        aiter(muster_users.subscription(table, on_poison="deliver"))

    with pytest.raises(ValueError, match="in batches"):
        asyncio.run(ask())


async def test_strangers_records_are_passed_over(muster_users: MusterUsers, table: SqliteUsers) -> None:
    muster_users.create()
    muster_users.put(b"hello")
    muster_users.put(None, key=b"x", headers={"ce_id": b"1"})
    told, counts = await bring_up(muster_users, table)
    assert (len(told), counts.foreign, counts.poison) == (1, 2, 0)
    muster_users.put(b"hello again")
    assert (await bring_up(muster_users, table))[1].foreign == 1
    assert (await bring_up(muster_users, table))[1].foreign == 0


async def test_whoever_was_away_too_long_is_told_who_is_gone(muster_users: MusterUsers, table: SqliteUsers) -> None:
    """Neither the deletion nor its tombstone is there any more."""
    people = [muster_users.create() for _ in range(10)]
    await bring_up(muster_users, table)
    for person in people[:4]:
        muster_users.delete(person)
    muster_users.update(people[5])
    muster_users.truncate()
    muster_users.compact()
    told, counts = await bring_up(muster_users, table)
    assert {one.user_id for one in told if one.kind is Kind.GONE} == set(people[:4])
    assert {one.user_id for one in told if one.kind is Kind.STATE} == {people[5]}
    assert counts.lost_places > 0
    assert living(table) == muster_users.living
    assert (await bring_up(muster_users, table))[0] == []


async def test_a_jump_of_whom_one_holds_is_filled_in_a_bootstrap_too(
    muster_users: MusterUsers, table: SqliteUsers
) -> None:
    ada = muster_users.create()
    await bring_up(muster_users, table)
    muster_users.update(ada)
    muster_users.update(ada)
    muster_users.truncate()
    muster_users.compact()
    told, _ = await bring_up(muster_users, table, feed=muster_users.feed)
    assert kinds(told) == [(Kind.UPDATED, 2), (Kind.STATE, 3)]


async def test_a_user_deleted_before_the_bootstrap_does_not_come_back(
    muster_users: MusterUsers, table: SqliteUsers
) -> None:
    """The tombstone is in the snapshot, and the events topic still has everything."""
    ada = muster_users.create()
    muster_users.update(ada)
    muster_users.erase(ada)
    muster_users.compact(tombstones=True)
    assert await bring_up(muster_users, table) == ([], Counts(duplicates=3, bootstraps=3))


async def test_nor_for_long_when_its_tombstone_is_compacted_away(muster_users: MusterUsers, table: SqliteUsers) -> None:
    ada = muster_users.create()
    muster_users.delete(ada)
    muster_users.compact()
    assert kinds((await bring_up(muster_users, table))[0]) == [(Kind.CREATED, 1), (Kind.DELETED, 2)]
    assert living(table) == {}


async def test_topics_made_anew_with_the_same_log_bring_nothing_twice(
    muster_users: MusterUsers, table: SqliteUsers
) -> None:
    people = [muster_users.create() for _ in range(10)]
    await bring_up(muster_users, table)
    for person in people[:3]:
        muster_users.delete(person)
    await bring_up(muster_users, table)
    muster_users.make_anew()
    muster_users.update(people[7])
    told, _ = await bring_up(muster_users, table)
    assert [(change.user_id, change.version) for change in told] == [(people[7], 2)]
    assert living(table) == muster_users.living


async def test_nobody_is_gone_while_new_topics_are_being_filled(muster_users: MusterUsers, table: SqliteUsers) -> None:
    people = [muster_users.create() for _ in range(10)]
    await bring_up(muster_users, table)
    with muster_users.losing():
        muster_users.delete(people[4])
        last = muster_users.create()
    muster_users.make_anew(filled=False)
    for first in range(len(muster_users.events)):
        told, counts = await bring_up(muster_users, table)
        assert not [change for change in told if change.kind is Kind.GONE]
        muster_users.fill_one(first)
    told, counts = await bring_up(muster_users, table)
    assert last in living(table)
    assert living(table) == muster_users.living
    # and they are followed again
    assert (await bring_up(muster_users, table))[1] == Counts()
    assert counts.lost_places == 0


@pytest.mark.parametrize("stop_after", range(1, 11))
async def test_nor_when_they_were_made_anew_in_the_middle_of_a_bootstrap(
    muster_users: MusterUsers, table: SqliteUsers, stop_after: int
) -> None:
    for _ in range(10):
        muster_users.update(muster_users.create())
    muster_users.compact()
    await begin(muster_users, table, stop_after=stop_after, limit=2)
    muster_users.make_anew(filled=False)
    for first in range(len(muster_users.events)):
        told, _ = await bring_up(muster_users, table)
        assert not [change for change in told if change.kind is Kind.GONE]
        muster_users.fill_one(first)
    await bring_up(muster_users, table)
    assert living(table) == muster_users.living
    assert (await bring_up(muster_users, table))[1] == Counts()


async def test_of_two_that_follow_a_partition_one_is_told_that_it_moved(
    muster_users: MusterUsers, table: SqliteUsers
) -> None:
    ada = muster_users.create()
    await bring_up(muster_users, table)
    muster_users.update(ada)
    first, second = muster_users.subscription(table), muster_users.subscription(table)
    async with first, second:
        of_first, of_second = await anext(aiter(first)), await anext(aiter(second))
        assert of_first.bookmark == of_second.bookmark
        table.apply([of_first], of_first.bookmark)
        with pytest.raises(Moved):
            table.apply([of_second], of_second.bookmark)
    assert table.connection.execute("SELECT applied FROM users").fetchall() == [(2,)]


async def test_instances_share_the_partitions(muster_users: MusterUsers, table: SqliteUsers) -> None:
    people = {muster_users.create() for _ in range(30)}
    shares = [(await bring_up(muster_users, table, partitions=[number]))[0] for number in range(3)]
    assert all(shares)
    assert [{change.bookmark.partition for change in share} for share in shares] == [{0}, {1}, {2}]
    assert {change.user_id for share in shares for change in share} == people


async def test_a_bookmark_of_a_later_version_is_understood(muster_users: MusterUsers, table: SqliteUsers) -> None:
    muster_users.create()
    await bring_up(muster_users, table)
    table.connection.execute("UPDATE bookmarks SET bookmark = json_set(bookmark, '$.mood', 'good')")
    muster_users.create()
    assert len((await bring_up(muster_users, table))[0]) == 1


async def test_what_the_application_raises_comes_out(muster_users: MusterUsers) -> None:
    class Full(Exception):
        pass

    class Application(SqliteUsers):
        async def keep(self, bookmark: Bookmark) -> None:
            raise Full(bookmark.partition)

    application = Application(":memory:")
    with pytest.raises(Full):
        await bring_up(muster_users, application)
    application.close()
