from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_api.decide import ChangeUser, Command, CreateUser, decide
from events.user import Status, User, UserEvent, UserUpdated, evolve
from events.wire import NAMES, changes_to_wire, event_from_wire, user_from_wire, user_to_wire
from tests.people import ADA, ADA_CREATED, NOON, change, create, delete, event_id

SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "email": st.sampled_from(["ada@example.com", "Ada@Example.com", "ada@lovelace.example"]),
        "display_name": st.none() | st.sampled_from(["Ada", "A. L."]),
        "status": st.sampled_from(Status),
        "roles": st.sampled_from([(), ("user",), ("admin", "user")]),
        "attributes": OBJECTS,
    },
)


def changing(patch: dict[str, Any] | None, new: dict[str, Any]) -> ChangeUser:
    return change(patch, **new)


CHANGES = st.builds(changing, st.none() | OBJECTS, FIELDS)
COMMANDS = st.lists(CHANGES | st.just(replace(change(), with_password=True)), max_size=8)


def history(first: CreateUser, rest: list[ChangeUser], *, deleted: bool) -> list[UserEvent]:
    """The events that the commands lead to, one second apart."""
    state, found = None, list[UserEvent]()
    commands: list[Command] = [first, *rest, *([delete()] if deleted else [])]
    for number, command in enumerate(commands, start=1):
        timed = replace(command, at=NOON + timedelta(seconds=number), event_id=event_id(number))
        if (event := decide(state, timed)) is not None:
            found.append(event)
            state = event.user
    return found


@settings(derandomize=True, max_examples=200)
@given(attributes=OBJECTS, rest=COMMANDS, deleted=st.booleans())
def test_the_fold_of_the_changes_is_the_carried_record(
    attributes: dict[str, Any], rest: list[ChangeUser], *, deleted: bool
) -> None:
    state: User | None = None
    for version, event in enumerate(history(create(attributes=attributes), rest, deleted=deleted), start=1):
        state = evolve(state, event)
        assert user_to_wire(state) == user_to_wire(event.user)
        assert event.user.version == version
        assert event.changes


@settings(derandomize=True, max_examples=100)
@given(rest=COMMANDS, deleted=st.booleans())
def test_events_come_back_from_the_wire_as_they_were(rest: list[ChangeUser], *, deleted: bool) -> None:
    for event in history(create(), rest, deleted=deleted):
        assert user_from_wire(user_to_wire(event.user)) == event.user
        again = event_from_wire(
            event_id=event.id,
            type_name=NAMES[type(event)],
            record=user_to_wire(event.user),
            changes=changes_to_wire(event.changes),
        )
        assert again == event


def test_a_user_is_created_once() -> None:
    with pytest.raises(ValueError, match="created already"):
        evolve(ADA, ADA_CREATED)


@pytest.mark.parametrize(
    "state", [None, replace(ADA, version=2), replace(ADA, version=7)], ids=["unknown", "the same", "later"]
)
def test_an_event_follows_the_version_before_it(state: User | None) -> None:
    event = decide(ADA, change(display_name="X"))
    assert isinstance(event, UserUpdated)
    with pytest.raises(ValueError, match="version 2"):
        evolve(state, event)
