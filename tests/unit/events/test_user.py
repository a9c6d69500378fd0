from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_api.decide import ChangeUser, decide
from events.user import User, UserUpdated, evolve
from events.wire import NAMES, changes_to_wire, event_from_wire, user_from_wire, user_to_wire
from tests.people import ADA, ADA_CREATED, change, create
from tests.random_histories import COMMANDS, OBJECTS, history


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
            document={"user": user_to_wire(event.user), "changes": changes_to_wire(event.changes)},
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
