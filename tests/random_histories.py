"""Strategies for what may be done to a user, and the events that it leads to."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from command_api.decide import ChangeUser, Command, CreateUser, decide
from events.user import Status, UserEvent
from tests.people import NOON, change, delete, event_id

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
