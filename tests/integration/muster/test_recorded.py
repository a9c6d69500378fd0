"""The record of a long operation has its end, with what was done until then, however it ends."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import errors

from events.operations import Operation, listed
from muster.failures import Refused
from muster.recorded import recorded
from muster.target import on_database
from runtime.settings import Settings
from tests.databases import MakeSettings


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


async def only(settings: Settings) -> Operation:
    [operation] = await on_database(settings, lambda connection: listed(connection, limit=10))
    assert (operation.operator, operation.operation, operation.parameters) == ("grace", "import", {"file": "x"})
    return operation


async def run(settings: Settings, error: BaseException | None = None) -> None:
    async with recorded(settings, "grace", "import", {"file": "x"}, refusals=(Refused,)) as result:
        assert (await only(settings)).outcome == "began"
        result["created"] = 3
        if error is not None:
            raise error


async def test_what_is_done_has_its_counts(settings: Settings) -> None:
    await run(settings)
    operation = await only(settings)
    assert (operation.outcome, operation.result) == ("done", {"created": 3})


@pytest.mark.parametrize(
    ("error", "outcome", "why"),
    [
        (OSError("no room"), "failed", "no room"),
        (ValueError(), "failed", "ValueError"),
        (Refused("not whole"), "refused", "not whole"),
        (asyncio.CancelledError(), "failed", "interrupted"),
        # it may quote somebody's row
        (errors.UniqueViolation("ada@example.com is there"), "failed", "UniqueViolation"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_what_fails_has_its_counts_and_why(
    settings: Settings, error: BaseException, outcome: str, why: str
) -> None:
    with pytest.raises(type(error)):
        await run(settings, error)
    operation = await only(settings)
    assert (operation.outcome, operation.result) == (outcome, {"created": 3, "why": why})


async def test_a_database_that_is_away_at_the_end_hides_no_failure(
    settings: Settings, owner: psycopg.Connection[dict[str, Any]]
) -> None:
    async def fail() -> None:
        async with recorded(settings, "grace", "import", {"file": "x"}):
            owner.execute("ALTER TABLE log.operations RENAME TO elsewhere")
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        await fail()
    owner.execute("ALTER TABLE log.elsewhere RENAME TO operations")
    assert (await only(settings)).outcome == "began"
