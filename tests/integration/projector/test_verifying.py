from collections.abc import Sequence
from typing import LiteralString

import pytest
from psycopg.types.json import Jsonb

from events.keyring import WrongKey
from events.partitioning import partition_of
from events.user import UserUpdated
from projector.findings import Finding
from projector.standing import CannotVerify
from projector.verifying import RANGE
from tests.databases import PARTITIONS, MakeSettings
from tests.integration.projector.conftest import Owner, Projected, project


def only(findings: Sequence[Finding]) -> Finding:
    assert len(findings) == 1, [(finding.place, finding.problem) for finding in findings]
    return findings[0]


async def test_a_model_that_is_as_the_log_says_has_no_difference(projected: Projected) -> None:
    assert await projected.findings() == []


async def test_more_users_than_a_range_holds_are_all_compared(owner: Owner, make_settings: MakeSettings) -> None:
    users = RANGE + 500
    made = project(owner, make_settings, users)
    assert await made.findings() == []
    last = max(event.user.id for event in made.events)
    owner.execute("DELETE FROM read_model.users WHERE id = %s", (last,))
    assert only(await made.findings()).user_id == last


async def test_a_changed_column_is_explained_by_the_event_that_set_it(projected: Projected) -> None:
    user_id = projected.with_events(3, changed="roles")
    projected.owner.execute("UPDATE read_model.users SET roles = '{root}' WHERE id = %s", (user_id,))
    finding = only(await projected.findings())
    history = projected.of(user_id)
    place, event = [(place, event) for place, event in history if "roles" in event.changes][-1]
    assert (finding.place, finding.user_id) == ("read model", user_id)
    assert [(one.name, one.log, one.found) for one in finding.deviations] == [
        ("roles", list(event.user.roles), ["root"])
    ]
    assert finding.entry is not None
    assert (finding.entry.position, finding.entry.version) == (place, event.user.version)


@pytest.mark.parametrize(
    "fault",
    [
        "UPDATE read_model.users_updated SET updated_at = '2020-01-01' WHERE id = %s",
        "UPDATE read_model.users_updated SET updated_at = NULL WHERE id = %s",
    ],
)
async def test_a_user_at_another_place_in_the_order_by_update_is_found(
    projected: Projected, fault: LiteralString
) -> None:
    assert await what_deviates(projected, fault) == ["users_updated.updated_at"]


@pytest.mark.parametrize(
    ("fault", "columns"),
    [
        ("DELETE FROM read_model.users_updated WHERE id = %s", ["updated_at", "status", "roles"]),
        ("UPDATE read_model.users_updated SET status = 'unheard of' WHERE id = %s", ["status"]),
        ("UPDATE read_model.users_updated SET roles = '{root}' WHERE id = %s", ["roles"]),
    ],
)
async def test_whoever_a_list_by_update_would_miss_is_found(
    projected: Projected, fault: LiteralString, columns: list[str]
) -> None:
    assert await what_deviates(projected, fault) == [f"users_updated.{column}" for column in columns]


@pytest.mark.parametrize(
    "fault",
    [
        "UPDATE read_model.users_names SET name = ' mallory' WHERE id = %s",
        "UPDATE read_model.users_names SET name = NULL WHERE id = %s",
        "DELETE FROM read_model.users_names WHERE id = %s",
    ],
)
async def test_whoever_a_search_would_miss_is_found(projected: Projected, fault: LiteralString) -> None:
    assert await what_deviates(projected, fault) == ["users_names.name"]


async def what_deviates(projected: Projected, fault: LiteralString) -> list[str]:
    user_id = projected.with_events(2)
    projected.owner.execute(fault, (user_id,))
    finding = only(await projected.findings())
    assert (finding.place, finding.user_id) == ("read model", user_id)
    assert all(one.personal == (one.name == "users_names.name") for one in finding.deviations)
    return [one.name for one in finding.deviations]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("email", "mallory@example.com"),
        ("email_canonical", "mallory@example.com"),
        ("display_name", "Mallory"),
        ("attributes", Jsonb({"team": "thieves"})),
        ("status", "unheard of"),
        ("created_at", "infinity"),
        ("updated_at", "2020-01-01"),
        ("password_changed_at", "2025-01-01"),
        ("position", 1_000_000),
    ],
)
async def test_each_column_is_compared(projected: Projected, column: str, value: object) -> None:
    user_id = projected.with_events(1)
    projected.owner.execute(f"UPDATE read_model.users SET {column} = %s WHERE id = %s".encode(), (value, user_id))
    finding = only(await projected.findings())
    # searches are then told another name than the row has
    beside = ["users_names.name"] if column == "display_name" else []
    assert [one.name for one in finding.deviations] == [column, *beside]
    assert finding.deviations[0].personal == (column in {"email", "email_canonical", "display_name", "attributes"})


async def test_a_missing_row_is_found(projected: Projected) -> None:
    user_id = projected.with_events(2)
    projected.owner.execute("DELETE FROM read_model.users WHERE id = %s", (user_id,))
    finding = only(await projected.findings())
    assert (finding.user_id, finding.problem) == (user_id, "there is no row")
    assert finding.entry is not None
    assert finding.entry.position == projected.of(user_id)[-1][0]


@pytest.mark.parametrize("user_id", ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"])
async def test_a_row_of_nobody_is_found_at_either_end(projected: Projected, user_id: str) -> None:
    projected.owner.execute(
        "INSERT INTO read_model.users (id, created_at, updated_at, deleted_at, version, position)"
        " VALUES (%s, now(), now(), now(), 1, 1)",
        (user_id,),
    )
    assert only(await projected.findings()).problem == "there is a row, and the log has no such user"


async def test_a_row_that_lacks_events_is_explained_by_the_first_that_it_lacks(projected: Projected) -> None:
    user_id = projected.with_events(3)
    first, second, *_ = projected.of(user_id)
    projected.put(*first)
    finding = only(await projected.findings())
    assert "the row is at version 1" in finding.problem
    assert finding.entry is not None
    assert finding.entry.position == second[0]


async def test_a_row_of_a_version_that_never_was_is_found(projected: Projected) -> None:
    user_id = projected.with_events(1)
    projected.owner.execute("UPDATE read_model.users SET version = 99 WHERE id = %s", (user_id,))
    assert "version 99" in only(await projected.findings()).problem


async def test_an_event_that_was_altered_is_found(projected: Projected) -> None:
    place, _ = projected.of(projected.with_events(3))[1]
    projected.break_seal(place)
    finding = only(await projected.findings())
    assert (finding.place, finding.problem.partition(":")[0]) == ("log", "cannot be opened")
    assert finding.entry is not None
    assert finding.entry.position == place


async def test_a_record_that_is_not_what_the_changes_lead_to_is_found(projected: Projected) -> None:
    place, event = projected.of(projected.with_events(3))[1]
    projected.owner.execute(
        "UPDATE log.events SET data = jsonb_set(data, '{record,status}', %s) WHERE position = %s",
        (Jsonb("disabled" if event.user.status == "active" else "active"), place),
    )
    findings = await projected.findings()
    assert findings[0].problem == "the record it carries is not what its changes lead to"
    assert findings[0].entry is not None
    assert findings[0].entry.position == place
    assert [one.name for one in findings[0].deviations] == ["status"]


async def test_a_change_that_says_another_old_value_is_found(projected: Projected) -> None:
    place = next(
        place
        for place, event in enumerate(projected.events, 1)
        if isinstance(event, UserUpdated) and "roles" in event.changes
    )
    projected.owner.execute(
        "UPDATE log.events SET data = jsonb_set(data, '{changes,roles,old}', '[\"root\"]') WHERE position = %s",
        (place,),
    )
    finding = only(await projected.findings())
    assert finding.problem == "what it says was there before its changes was not"
    assert [one.found for one in finding.deviations] == [["root"]]


async def test_an_event_that_was_removed_is_found(projected: Projected) -> None:
    place, _ = projected.of(projected.with_events(3))[1]
    projected.owner.execute("DELETE FROM log.events WHERE position = %s", (place,))
    assert only(await projected.findings()).problem == "version 3 comes where 2 is next"


async def test_users_without_a_key_are_still_compared(projected: Projected) -> None:
    user_id = projected.with_events(1)
    projected.owner.execute("DELETE FROM log.user_keys WHERE user_id = %s", (user_id,))
    assert {finding.user_id for finding in await projected.findings()} == {user_id}


async def test_a_parked_user_has_the_row_from_before(projected: Projected) -> None:
    user_id = projected.with_events(3)
    first, second, *_ = projected.of(user_id)
    projected.break_seal(second[0])
    projected.put(*first)
    projected.hold_back(user_id, 2)
    assert await projected.findings() == []
    projected.owner.execute("DELETE FROM read_model.users WHERE id = %s", (user_id,))
    assert only(await projected.findings()).problem == "there is no row"


async def test_a_parked_user_has_no_later_row(projected: Projected) -> None:
    user_id = projected.with_events(3)
    projected.hold_back(user_id, 2)
    assert "is held back from 2 on" in only(await projected.findings()).problem


async def test_who_is_parked_from_the_beginning_has_no_row(projected: Projected) -> None:
    user_id = projected.with_events(2)
    projected.hold_back(user_id, 1)
    projected.owner.execute("DELETE FROM read_model.users WHERE id = %s", (user_id,))
    assert await projected.findings() == []


async def test_an_event_that_was_given_up_is_passed_over(projected: Projected) -> None:
    user_id = projected.with_events(3)
    *_, before_last, last = projected.of(user_id)
    projected.break_seal(last[0])
    projected.give_up(last[0])
    projected.put(*before_last)
    assert await projected.findings() == []
    # and the fold goes on behind one
    second = projected.of(user_id)[1]
    projected.give_up(second[0])
    assert [finding for finding in await projected.findings() if finding.place == "log"] == []


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_whom_the_relay_holds_back_may_have_any_row_from_there_on(projected: Projected, version: int) -> None:
    user_id = projected.with_events(3)
    history = projected.of(user_id)
    projected.leave_unpublished(user_id, 2)
    projected.put(*history[version - 1])
    assert await projected.findings() == []
    projected.owner.execute("UPDATE read_model.users SET status = 'unheard of' WHERE id = %s", (user_id,))
    assert [one.name for one in only(await projected.findings()).deviations] == ["status"]


async def test_whom_the_relay_holds_back_still_has_what_was_published(projected: Projected) -> None:
    user_id = projected.with_events(3)
    projected.leave_unpublished(user_id, 3)
    projected.put(*projected.of(user_id)[0])
    assert "the row is at version 1" in only(await projected.findings()).problem


async def test_what_the_partition_has_not_reached_is_not_expected_yet(projected: Projected) -> None:
    user_id = projected.with_events(3)
    first, second, *_ = projected.of(user_id)
    partition = partition_of(user_id, PARTITIONS)
    projected.owner.execute(
        "UPDATE read_model.progress SET position = %s WHERE partition = %s", (second[0] - 1, partition)
    )
    projected.put(*first)
    # the others of the partition are newer than it: as after a rebuild
    assert await projected.findings() == []
    projected.owner.execute("UPDATE read_model.progress SET position = %s WHERE partition = %s", (second[0], partition))
    assert only(await projected.findings()).user_id == user_id


@pytest.mark.parametrize(("epoch", "expected"), [(0, 1), (1, 0)])
async def test_a_partition_without_traffic_has_reached_what_was_published(
    projected: Projected, epoch: int, expected: int
) -> None:
    user_id = projected.with_events(1)
    partition = partition_of(user_id, PARTITIONS)
    projected.owner.execute("UPDATE read_model.progress SET position = 0 WHERE partition = %s", (partition,))
    projected.owner.execute("DELETE FROM read_model.users WHERE id = %s", (user_id,))
    projected.owner.execute(
        "INSERT INTO log.publication (topic, partition, position, next_offset, last_position, epoch)"
        " VALUES (%s, %s, %s, 0, 0, %s)",
        (projected.settings.events_topic, partition, len(projected.events), epoch),
    )
    assert len(await projected.findings()) == expected


async def test_a_model_of_another_shape_is_not_compared(projected: Projected) -> None:
    projected.owner.execute("UPDATE read_model.builds SET shape = 99 WHERE state = 'live'")
    with pytest.raises(CannotVerify, match="shape 99"):
        await projected.findings()


async def test_a_model_that_nobody_began_is_not_compared(projected: Projected) -> None:
    projected.owner.execute("DELETE FROM read_model.progress WHERE partition = 1")
    with pytest.raises(CannotVerify, match="partition 1"):
        await projected.findings()


async def test_another_number_of_partitions_is_refused(projected: Projected) -> None:
    projected.owner.execute("INSERT INTO log.partitioning (partitions) VALUES (12)")
    with pytest.raises(CannotVerify, match="set it to 12"):
        await projected.findings()


async def test_another_kek_is_no_difference_but_an_error(projected: Projected) -> None:
    projected.owner.execute("UPDATE log.user_keys SET kek_id = 'another', wrapped = %s", (bytes(40),))
    with pytest.raises(WrongKey):
        await projected.findings()
