"""`muster lag` as a probe: 0 healthy, 1 a finding, 2 not checked."""

from typing import Any

import httpx
import pytest

from query_api.projection_routes import ProjectionBody
from tests.calls import create
from tests.databases import PARTITIONS, MakeSettings
from tests.integration.muster.conftest import Muster, Told
from tests.processes import environment_of
from tests.read_model import Owner, ReadModel

NOWHERE = "postgresql://muster_query@127.0.0.1:1/nowhere"


@pytest.fixture
def surroundings(surroundings: dict[str, str], make_settings: MakeSettings) -> dict[str, str]:
    """The environment of an operator who has the query API's login."""
    return surroundings | environment_of(make_settings("muster_query"))


@pytest.fixture
async def events(commands: httpx.AsyncClient, model: ReadModel) -> list[dict[str, Any]]:
    """Three users, published and applied."""
    users = [await create(commands, f"user{number}@example.com") for number in range(3)]
    for partition in range(PARTITIONS):
        model.publish(partition, offset=3, position=3)
        model.stand(partition, offset=3, position=3)
    return users


def finding(told: Told) -> str:
    """What a probe that found something says, in one line."""
    assert told.status == 1, told.stderr
    assert told.stdout
    assert told.stderr.startswith("muster: ")
    assert told.stderr.count("\n") == 1
    return told.stderr.removeprefix("muster: ").strip()


@pytest.mark.usefixtures("events")
async def test_a_projection_that_has_everything_is_healthy(muster: Muster) -> None:
    told = await muster("lag")
    assert (told.status, told.stderr) == (0, "")
    lines = told.stdout.splitlines()
    assert lines[0] == "live"
    assert lines[1].startswith("head 3, published 3, applied 3; 0 events and 0.0 s behind, 0 events/s, last moved ")
    assert "projector" in told.stdout


@pytest.mark.usefixtures("events")
async def test_scripts_get_what_the_query_api_tells(muster: Muster, queries: httpx.AsyncClient) -> None:
    told = await muster("lag", "--json")
    assert told.status == 0
    found = told.result
    ProjectionBody.model_validate(found, extra="forbid")
    answered = (await queries.get("/projection")).json()
    changing = {"checked_at", "projectors"}
    assert {name: value for name, value in found.items() if name not in changing} == {
        name: value for name, value in answered.items() if name not in changing
    }


@pytest.mark.usefixtures("events")
async def test_the_projectors_login_serves_as_well(muster: Muster, make_settings: MakeSettings) -> None:
    told = await muster("lag", **environment_of(make_settings("muster_projector")))
    assert told.status == 0


@pytest.mark.usefixtures("events")
async def test_without_a_projector_it_finds_that(muster: Muster, model: ReadModel) -> None:
    model.die()
    told = await muster("lag", "--json")
    assert finding(told).startswith("stalled: no projector is running: one was last seen 4")
    assert told.result["state"] == "stalled"


@pytest.mark.usefixtures("events")
async def test_a_projector_that_does_not_move_is_a_finding(muster: Muster, model: ReadModel) -> None:
    model.age_log(20)
    for partition in range(PARTITIONS):
        model.stand(partition, offset=0, position=0, ago=30)
    told = await muster("lag", "--max-seconds", "3600")
    assert finding(told).startswith("stalled: partition")
    assert told.stdout.startswith("stalled: partition")


@pytest.mark.usefixtures("events")
async def test_more_than_the_bounds_allow_is_a_finding(muster: Muster, model: ReadModel) -> None:
    model.age_log(60)
    for partition in range(PARTITIONS):
        # on its way
        model.stand(partition, offset=1, position=1, ago=-600)
    wide = ("--max-seconds", "3600")
    assert (await muster("lag", *wide)).stdout.startswith("catching-up: 2 events and 6")
    assert (await muster("lag", *wide)).status == 0
    assert finding(await muster("lag")).endswith(" s behind, more than 10")
    assert finding(await muster("lag", *wide, "--max-events", "1")) == "2 events behind, more than 1"


async def test_a_parked_user_is_a_finding_even_while_a_rebuild_goes_on(
    muster: Muster, model: ReadModel, events: list[Any]
) -> None:
    model.park(events[0]["id"])
    told = await muster("lag")
    assert finding(told) == "users held back: 1 (`muster parked list` names them)"
    assert told.stdout.startswith("parked 1: users held back from the read model: 1\n")
    model.build()
    told = await muster("lag")
    assert finding(told) == "users held back: 1 (`muster parked list` names them)"
    assert told.stdout.startswith("rebuilding: ")


@pytest.mark.usefixtures("events")
async def test_a_record_that_was_set_aside_is_a_finding(muster: Muster, owner: Owner) -> None:
    owner.execute(
        "INSERT INTO read_model.parked (source, partition, topic_offset, reason) VALUES ('topic', 0, 7, 'no event')"
    )
    told = await muster("lag")
    assert finding(told) == "records of the topic set aside: 1 (`muster parked list` shows them)"
    assert told.stdout.startswith("parked 1: ")


@pytest.mark.usefixtures("events")
async def test_a_rebuild_is_healthy(muster: Muster, model: ReadModel) -> None:
    model.build()
    told = await muster("lag")
    assert (told.status, told.stderr) == (0, "")
    assert told.stdout.startswith("rebuilding: the new table is in its phase of copying\n")


async def test_a_database_that_is_away_was_not_checked(muster: Muster) -> None:
    status, said = (await muster("lag", DATABASE_URL=NOWHERE)).refusal
    assert status == 2
    assert said.startswith("muster: no connection to the database:")


async def test_wrong_settings_were_not_checked(muster: Muster, owner: Owner) -> None:
    owner.execute("INSERT INTO log.partitioning (partitions) VALUES (12)")
    assert (await muster("lag")).refusal == (
        2,
        "muster: TOPIC_PARTITIONS is 3, and this log was begun with 12, which is fixed for ever: set it to 12",
    )
    assert (await muster("lag", TOPIC_PARTITIONS="many")).refusal[0] == 2
    status, said = (await muster("lag", DATABASE_URL=None)).refusal
    assert (status, said.count("\n")) == (2, 0)


async def test_a_login_that_may_not_look_was_not_checked(muster: Muster, make_settings: MakeSettings) -> None:
    assert (await muster("lag", **environment_of(make_settings("muster_command")))).refusal == (
        2,
        "muster: the login of DATABASE_URL may not read where the projection stands: give the query API's",
    )


async def test_a_database_of_another_schema_was_not_checked(muster: Muster, postgres_url: str) -> None:
    assert (await muster("lag", DATABASE_URL=postgres_url)).refusal == (
        2,
        "muster: the database has another schema than this version's: run `muster migrate`",
    )


@pytest.mark.parametrize("option", ["--max-seconds", "--max-events"])
async def test_a_bound_is_a_number_that_can_be_kept(muster: Muster, option: str) -> None:
    for value in ("-1", "soon"):
        assert (await muster("lag", option, value)).refusal[0] == 2


async def test_the_codes_are_told_with_the_command(muster: Muster) -> None:
    told = " ".join((await muster("lag", "--help")).stdout.split())
    assert "Exits with 0 when the projection moves" in told
    assert "with 1 when it is stalled" in told
    assert "with 2 when that could not be checked, which is not healthy" in told
