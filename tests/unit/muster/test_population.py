from itertools import pairwise

import pytest

from events.user import Status, User, UserCreated, UserDeleted, UserEvent, evolve
from muster.population import BLOCK, Block, Happening, Population


def happenings(users: int, *, seed: int = 1, first: int = 1) -> list[Happening]:
    population = Population(seed=seed, first=first, users=users)
    return [happening for number in range(population.blocks) for happening in Block(population, number).happenings()]


def events(users: int, *, seed: int = 1, first: int = 1) -> list[UserEvent]:
    return [happening.event for happening in happenings(users, seed=seed, first=first)]


def test_the_same_seed_makes_the_same_events() -> None:
    assert happenings(300) == happenings(300)


@pytest.mark.parametrize("other", [{"seed": 2, "first": 1001}, {"seed": 1, "first": 1001}])
def test_other_numbers_make_users_who_share_no_id_and_no_address(other: dict[str, int]) -> None:
    these, those = events(300), events(300, **other)
    assert not {event.user.id for event in these} & {event.user.id for event in those}
    assert not {event.user.email.lower() for event in these} & {event.user.email.lower() for event in those}


@pytest.mark.parametrize("users", [1, 2, 7, BLOCK, BLOCK + 3])
def test_there_are_half_as_many_further_events_as_users(users: int) -> None:
    made = events(users)
    assert len(made) == Population(seed=1, first=1, users=users).events == users + users // 2
    assert sum(isinstance(event, UserCreated) for event in made) == users


def test_each_event_carries_what_folding_the_changes_gives() -> None:
    states: dict[object, User] = {}
    for event in events(BLOCK):
        state = evolve(states.get(event.user.id), event)
        assert state == event.user
        states[event.user.id] = state


def test_nothing_happens_before_what_came_before_it_or_after_the_year() -> None:
    made = events(BLOCK + 100)
    assert all(before.user.updated_at <= after.user.updated_at for before, after in pairwise(made))
    assert {event.user.updated_at.year for event in made} == {2025}


def test_the_users_are_as_varied_as_a_company() -> None:
    newest = {event.user.id: event for event in events(BLOCK)}
    users = [event.user for event in newest.values()]
    assert 0.01 < sum(isinstance(event, UserDeleted) for event in newest.values()) / BLOCK < 0.03
    assert 0.01 < sum(user.status is Status.DISABLED for user in users) / BLOCK < 0.1
    assert {role for user in users for role in user.roles} == {"admin", "auditor", "editor", "operator", "user"}
    assert {user.email.partition("@")[2] for user in users} == {"example.com", "example.net", "example.org"}
    assert max(user.version for user in users) > 5
    assert sum(user.version == 1 for user in users) > BLOCK / 2


def test_no_two_users_ever_have_one_address() -> None:
    owners: dict[str, set[object]] = {}
    for event in events(BLOCK):
        owners.setdefault(event.user.email.lower(), set()).add(event.user.id)
    assert {len(ids) for ids in owners.values()} == {1}
