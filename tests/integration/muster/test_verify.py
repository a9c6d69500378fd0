from typing import Any

import psycopg
import pytest

from tests.databases import MakeSettings
from tests.integration.muster.conftest import Muster
from tests.integration.projector.conftest import Projected, project
from tests.processes import environment_of

Owner = psycopg.Connection[dict[str, Any]]
USERS = 60


@pytest.fixture
def projected(owner: Owner, make_settings: MakeSettings) -> Projected:
    return project(owner, make_settings, USERS)


@pytest.fixture
def surroundings(surroundings: dict[str, str], make_settings: MakeSettings) -> dict[str, str]:
    """An operator's, with the projector's login."""
    return surroundings | environment_of(make_settings("muster_projector"))


async def test_no_difference_is_0_and_says_what_was_compared(muster: Muster, projected: Projected) -> None:
    told = await muster("verify", "model", "--json", "--no-topics")
    assert told.status == 0, told.stderr
    [progress], summary = told.records, told.result
    assert (progress["phase"], progress["done"], progress["total"]) == ("read model", USERS, USERS)
    seconds = summary.pop("seconds")
    assert seconds > 0
    assert summary == {
        "differences": 0,
        "found": [],
        "position": 90,
        "reached": 90,
        "users": USERS,
        "events": 90,
        "rows": USERS,
        "parked": {"projector": 0, "relay": 0},
        "discarded": 0,
        "topics": None,
    }
    assert len(projected.events) == 90


async def test_the_first_difference_is_1_and_told_with_its_event(muster: Muster, projected: Projected) -> None:
    user_id = projected.with_events(1)
    other_id = projected.with_events(3, changed="roles")
    projected.owner.execute(
        "UPDATE read_model.users SET status = 'gone', email = 'mallory@example.com' WHERE id = ANY(%s)",
        ([user_id, other_id],),
    )
    told = await muster("verify", "model", "--json", "--no-topics")
    assert told.status == 1
    found = told.result["found"]
    assert len(found) == 1
    assert found[0]["user_id"] == str(min(user_id, other_id))
    assert found[0]["differing"] == {
        "email": "personal",
        "status": {"log": projected.of(min(user_id, other_id))[-1][1].user.status, "found": "gone"},
    }
    event = found[0]["event"]
    assert event["actor"] == {"kind": "operator", "subject": "muster seed"}
    assert event["position"] in [place for place, _ in projected.of(min(user_id, other_id))]
    assert {"type", "version", "recorded_at", "request_id", "correlation_id"} <= event.keys()
    assert told.result["differences"] == 2


async def test_every_difference_is_told_on_demand_and_nothing_personal(muster: Muster, projected: Projected) -> None:
    projected.owner.execute("UPDATE read_model.users SET display_name = 'Mallory Moriarty' WHERE deleted_at IS NULL")
    told = await muster("verify", "model", "--json", "--no-topics", "--all")
    assert told.status == 1
    found = told.result["found"]
    assert len(found) == told.result["differences"] > 50
    # searches are told the name that is right, which who has none lacks there too
    named = {"display_name": "personal", "users_names.name": "personal"}
    assert all(one["differing"] in (named, {"display_name": "personal"}) for one in found)
    assert named in [one["differing"] for one in found]
    assert "Mallory" not in told.stdout + told.stderr
    assert not any(event.user.display_name in told.stdout for event in projected.events if event.user.display_name)


async def test_users_who_are_held_back_are_told(muster: Muster, projected: Projected) -> None:
    user_id = projected.with_events(1)
    projected.hold_back(user_id, 1)
    projected.owner.execute("DELETE FROM read_model.users WHERE id = %s", (user_id,))
    told = await muster("verify", "model", "--json", "--no-topics")
    assert told.status == 0
    assert told.result["parked"] == {"projector": 1, "relay": 0}


@pytest.mark.usefixtures("projected")
@pytest.mark.parametrize(
    ("options", "variables", "said"),
    [
        ((), {}, "--no-topics"),
        (("--no-topics",), {"DATABASE_URL": "postgresql://muster_projector@127.0.0.1:1/none"}, "database"),
        (("--no-topics",), {"TOPIC_PARTITIONS": "5"}, "no projector has ever had partition 3, 4"),
        (("--no-topics",), {"KEK": "A" * 42 + "M=", "KEK_FILE": None}, "KEK"),
        (("--no-topics",), {"KEK": None, "KEK_FILE": None}, "KEK"),
        (("--no-topics",), {"DATABASE_URL": None}, "make run"),
    ],
    ids=["no broker", "no database", "other partitions", "another KEK", "no KEK", "no settings"],
)
async def test_what_could_not_be_checked_is_2_and_one_line(
    muster: Muster, options: tuple[str, ...], variables: dict[str, str | None], said: str
) -> None:
    status, line = (await muster("verify", "model", *options, **variables)).refusal
    assert status == 2, line
    assert len(line.splitlines()) == 1
    assert said in line


async def test_an_empty_log_has_no_difference(muster: Muster) -> None:
    told = await muster("verify", "model", "--json", "--no-topics")
    assert told.status == 0, told.stderr
    assert told.result["users"] == 0
