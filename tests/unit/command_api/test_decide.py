from dataclasses import replace
from datetime import timedelta

import pytest

from command_api.decide import (
    MAX_ATTRIBUTES,
    AttributesTooLarge,
    ChangeUser,
    Command,
    DeleteUser,
    UserExists,
    UserGone,
    UserUnknown,
    VersionMismatch,
    decide,
)
from events.user import Change, Status, User, UserCreated, UserDeleted, UserUpdated
from tests.people import ADA, ADA_CREATED, LATER, NOON, change, create, delete, event_id

GONE = replace(ADA, version=2, deleted_at=LATER, updated_at=LATER)


def updated(state: User, command: Command) -> UserUpdated:
    event = decide(state, command)
    assert isinstance(event, UserUpdated)
    return event


def test_a_creation_sets_every_field_from_nothing() -> None:
    event = decide(None, create())
    assert event == ADA_CREATED
    assert isinstance(event, UserCreated)
    assert event.changes["email"] == Change(old=None, new="Ada@Example.com")
    assert "password_changed_at" not in event.changes


def test_a_creation_with_a_password_says_when_and_nothing_more() -> None:
    event = decide(None, create(with_password=True))
    assert event is not None
    assert event.user.password_changed_at == NOON


def test_an_id_is_taken_once() -> None:
    with pytest.raises(UserExists):
        decide(ADA, create())


def test_a_change_carries_the_record_and_what_changed() -> None:
    event = updated(ADA, change(display_name="Ada Lovelace"))
    assert event.user == replace(ADA, version=2, display_name="Ada Lovelace", updated_at=LATER)
    assert event.changes == {"display_name": Change(old="Ada", new="Ada Lovelace")}


def test_fields_that_stay_the_same_are_not_told() -> None:
    event = updated(ADA, change(display_name="Ada", status=Status.DISABLED))
    assert set(event.changes) == {"status"}


@pytest.mark.parametrize(
    "same",
    [
        change(),
        change({}),
        change({"team": "engines"}),
        change({"nothing": None}),
        change(attributes={"team": "engines"}),
        change(email="Ada@Example.com", roles=("admin", "user"), status=Status.ACTIVE),
    ],
)
def test_a_change_that_changes_nothing_is_no_event(same: ChangeUser) -> None:
    assert decide(ADA, same) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [(True, 1), (1, 1.0), (False, 0), ([True], [1]), ({"deep": 1}, {"deep": True}), ("1", 1), (None, False), ([], {})],
)
def test_json_values_that_python_takes_for_equal_are_changes(before: object, after: object) -> None:
    event = updated(replace(ADA, attributes={"x": before}), change(attributes={"x": after}))
    assert event.changes["attributes"] == Change(old={"x": before}, new={"x": after})


def test_the_order_of_members_is_no_change() -> None:
    assert decide(replace(ADA, attributes={"a": 1, "b": 2}), change(attributes={"b": 2, "a": 1})) is None


def test_an_email_typed_another_way_is_a_change() -> None:
    assert set(updated(ADA, change(email="ada@example.com")).changes) == {"email"}


def test_a_new_password_is_a_change_even_when_nothing_else_is() -> None:
    event = updated(ADA, replace(change(), with_password=True))
    assert event.changes == {"password_changed_at": Change(old=None, new=LATER)}


def test_attributes_may_have_8_kib() -> None:
    fitting = {"x": "a" * (MAX_ATTRIBUTES - len(b'{"x":""}'))}
    assert updated(ADA, change(attributes=fitting)).user.attributes == fitting
    with pytest.raises(AttributesTooLarge):
        decide(ADA, change(attributes={"x": fitting["x"] + "a"}))
    with pytest.raises(AttributesTooLarge):
        decide(None, create(attributes={"x": fitting["x"] + "a"}))


def test_a_patch_that_makes_the_attributes_too_large_is_refused() -> None:
    half = "a" * (MAX_ATTRIBUTES // 2)
    with pytest.raises(AttributesTooLarge):
        decide(replace(ADA, attributes={"x": half}), change({"y": half}))


def test_a_record_that_was_too_large_before_can_still_change_elsewhere() -> None:
    large = replace(ADA, attributes={"x": "a" * MAX_ATTRIBUTES})
    assert set(updated(large, change(status=Status.DISABLED)).changes) == {"status"}


def test_a_deletion_keeps_the_record() -> None:
    event = decide(ADA, delete())
    assert isinstance(event, UserDeleted)
    assert event.user == replace(ADA, version=2, updated_at=LATER, deleted_at=LATER)
    assert event.changes == {"deleted_at": Change(old=None, new=LATER)}


@pytest.mark.parametrize("command", [change(display_name="X"), delete()])
def test_an_unknown_user_cannot_be_changed(command: Command) -> None:
    with pytest.raises(UserUnknown):
        decide(None, command)


@pytest.mark.parametrize("command", [change(display_name="X"), change(), delete()])
def test_a_deleted_user_cannot_be_changed(command: Command) -> None:
    with pytest.raises(UserGone):
        decide(GONE, command)


@pytest.mark.parametrize("command", [change(display_name="X"), change(), delete()])
def test_only_a_version_that_the_caller_named_is_changed(command: ChangeUser | DeleteUser) -> None:
    for versions in (frozenset[int](), frozenset({2}), frozenset({2, 3})):
        with pytest.raises(VersionMismatch) as refused:
            decide(ADA, replace(command, versions=versions))
        assert refused.value.version == 1
    decide(ADA, replace(command, versions=frozenset({1, 2})))


@pytest.mark.parametrize("command", [change(display_name="X", at=NOON - timedelta(hours=1)), delete(at=NOON)])
def test_a_users_times_never_go_back(command: Command) -> None:
    event = decide(ADA, command)
    assert event is not None
    assert event.user.updated_at == NOON
    assert event.user.deleted_at in {None, NOON}


def test_a_new_password_is_a_change_even_by_a_clock_that_stands_still() -> None:
    """The instance that took the one before may have a clock that is ahead."""
    again = ChangeUser(event_id=event_id(2), at=NOON, new={}, attributes_patch=None, with_password=True, versions=None)
    before = replace(ADA, updated_at=LATER, password_changed_at=LATER)
    event = decide(before, again)
    assert event is not None
    assert event.user.password_changed_at is not None
    assert event.user.password_changed_at > LATER
    assert event.user.updated_at >= event.user.password_changed_at
