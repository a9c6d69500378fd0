"""A history's judgement without a database: entries and rows as values."""

from dataclasses import replace
from typing import Any

import pytest

from command_api.decide import decide
from events.histories import Entry
from events.recording import Position
from events.user import Change, User, UserEvent
from events.wire import NAMES, erased_event, user_to_wire
from projector.findings import Finding
from projector.judging import Expectation, History
from projector.rows import row_of
from tests.people import ADA_ID, change, create, delete, recorded

CREATED = decide(None, create())
assert CREATED is not None
RENAMED = decide(CREATED.user, change(display_name="Ada King"))
assert RENAMED is not None
DELETED = decide(RENAMED.user, delete())
assert DELETED is not None
STORY = (CREATED, RENAMED, DELETED)
ALL = Expectation(reached=Position(100))


def entry(event: UserEvent, *, position: int | None = None, **fields: Any) -> Entry:  # noqa: ANN401 - fields of any type
    place = event.user.version * 10 if position is None else position
    values: dict[str, Any] = {
        "position": Position(place),
        "user_id": event.user.id,
        "version": event.user.version,
        "event_id": event.id,
        "type_name": NAMES[type(event)],
        "recorded_at": event.user.updated_at,
        "metadata": {},
        "discarded": False,
        "recorded": recorded(event, position=place),
    }
    return Entry(**values | fields)


def held(user: User, *, position: int | None = None) -> dict[str, Any]:
    row = row_of(user_to_wire(user), user.version * 10 if position is None else position)
    del row["first"]
    return row


def judged(entries: list[Entry], row: dict[str, Any] | None, expectation: Expectation = ALL) -> list[Finding]:
    history = History(ADA_ID, expectation, row)
    return [*(finding for one in entries for finding in history.add(one)), *history.judge_row()]


def problems(findings: list[Finding]) -> list[str]:
    return [finding.problem for finding in findings]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_row_of_the_newest_event_is_right_at_every_version(count: int) -> None:
    assert judged([entry(event) for event in STORY[:count]], held(STORY[count - 1].user)) == []


def test_nobody_who_never_was_needs_a_row() -> None:
    assert judged([], None) == []


def test_a_deleted_users_row_keeps_nothing_personal() -> None:
    row = held(STORY[2].user) | {"email": "ada@example.com"}
    (finding,) = judged([entry(event) for event in STORY], row)
    assert [(one.name, one.log, one.personal) for one in finding.deviations] == [("email", None, True)]


def test_a_fold_that_differs_is_told_once_and_goes_on_from_what_is_carried() -> None:
    strange = replace(STORY[1], user=replace(STORY[1].user, roles=("root",)))
    after = decide(strange.user, delete())
    assert after is not None
    findings = judged([entry(STORY[0]), entry(strange), entry(after)], held(after.user))
    assert problems(findings) == ["the record it carries is not what its changes lead to"]
    assert [(one.name, one.found) for one in findings[0].deviations] == [("roles", ["root"])]


def test_a_change_of_an_unknown_field_cannot_be_folded() -> None:
    strange = replace(STORY[1], changes={"shoe_size": Change(old=None, new=43)})
    assert "its changes cannot be folded (TypeError)" in problems(judged([entry(STORY[0]), entry(strange)], None))


def test_a_second_creation_cannot_be_folded() -> None:
    again = replace(STORY[0], user=replace(STORY[0].user, version=2))
    found = problems(judged([entry(STORY[0]), entry(again)], held(again.user)))
    assert "its changes cannot be folded (ValueError)" in found


def test_an_event_that_carries_another_users_version_is_found() -> None:
    assert problems(judged([entry(STORY[0]), entry(STORY[2], version=2, position=20)], None))[0] == (
        "it carries the record of another user or version"
    )


def test_positions_follow_versions() -> None:
    found = judged([entry(STORY[0], position=30), entry(STORY[1], position=20)], held(STORY[1].user))
    assert problems(found) == ["position 20 comes after 30"]


def test_an_unreadable_event_is_no_finding_where_the_user_is_held_back() -> None:
    lost = entry(STORY[1], recorded=None, reason="a test")
    for expectation in (
        Expectation(reached=Position(100), parked=2),
        Expectation(reached=Position(100), unpublished=2),
    ):
        assert judged([entry(STORY[0]), lost], held(STORY[0].user), expectation) == []
    assert problems(judged([entry(STORY[0]), lost], held(STORY[0].user))) == ["cannot be opened: a test"]


def test_a_row_of_an_event_that_was_given_up_is_found() -> None:
    found = judged([entry(STORY[0]), entry(STORY[1], discarded=True)], held(STORY[1].user))
    assert problems(found) == ["the row is at version 2, of which the log has no such event"]


def test_an_erased_story_is_right_as_far_as_it_is_there() -> None:
    entries = [entry(erased_event(event)) for event in STORY]
    assert judged(entries, held(entries[-1].recorded.event.user)) == []  # pyright: ignore[reportOptionalMemberAccess]
    assert judged(entries, held(STORY[2].user)) == []


def test_what_is_left_of_an_erased_story_must_still_fold() -> None:
    created, renamed, deleted = STORY
    other = replace(renamed, user=replace(renamed.user, roles=("auditor",)))
    found = judged([entry(erased_event(event)) for event in (created, other, deleted)], held(deleted.user))
    assert next(one.problem for one in found) == "the record it carries is not what its changes lead to"


def test_a_tombstone_of_a_user_who_was_never_deleted_is_found() -> None:
    story = [entry(erased_event(event)) for event in STORY[:2]]
    found = judged(story, held(erased_event(STORY[1]).user))
    assert [one.problem for one in found] == ["the user's key is a tombstone, and they were never deleted"]


def test_an_erased_users_row_that_has_something_personal_is_found() -> None:
    entries = [entry(erased_event(event)) for event in STORY]
    (found,) = judged(entries, held(STORY[2].user) | {"email": "ada@example.com"})
    assert [one.name for one in found.deviations] == ["email"]
