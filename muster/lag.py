"""How far the read model is behind, straight from the database: it works when both APIs are down."""

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

from psycopg import errors
from rich.console import RenderableType
from rich.table import Table

from events.partitioning import WrongPartitions, check_partitions
from muster.answers import Answer, Finding
from muster.failures import CannotRun
from muster.target import on_database
from query_api.projection import Projection, projection_of
from query_api.standing import Standing, read_standing
from runtime.database import Connection
from runtime.settings import Settings


def lag_of(settings: Settings, *, max_seconds: float, max_events: int | None) -> Answer:
    """Raises CannotRun, Unavailable or psycopg's errors when it cannot be checked."""
    projection = projection_of(_standing(settings))
    return Answer(
        # as GET /projection has it
        result=asdict(projection),
        words=_words(projection),
        findings=[*findings(projection, max_seconds=max_seconds, max_events=max_events)],
    )


def findings(projection: Projection, *, max_seconds: float, max_events: int | None) -> Iterator[Finding]:
    """What an operator should see to. Users who are held back are so in whatever state the projection is besides."""
    if projection.kind == "stalled":
        yield Finding(code="stalled", detail=f"{projection.state}: {projection.why}")
    if projection.lag_seconds > max_seconds:
        yield Finding(code="behind", detail=f"{projection.lag_seconds:.1f} s behind, more than {max_seconds:g}")
    if max_events is not None and projection.lag_events > max_events:
        yield Finding(code="behind", detail=f"{projection.lag_events} events behind, more than {max_events}")
    parked = projection.parked
    if parked.users:
        yield Finding(code="parked", detail=f"users held back: {parked.users} (`muster parked list` names them)")
    if parked.records:
        told = f"records of the topic set aside: {parked.records} (`muster parked list` shows them)"
        yield Finding(code="set_aside", detail=told)


def _standing(settings: Settings) -> Standing:
    async def read(connection: Connection) -> Standing:
        await check_partitions(connection, settings.topic_partitions)
        return await read_standing(connection, settings.events_topic, settings.topic_partitions)

    try:
        return asyncio.run(on_database(settings, read))
    except WrongPartitions as error:
        raise CannotRun(str(error)) from None
    except errors.InsufficientPrivilege:
        raise CannotRun(
            "the login of DATABASE_URL may not read where the projection stands: give the query API's"
        ) from None
    except (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName):
        raise CannotRun("the database has another schema than this version's: run `muster migrate`") from None


def _words(projection: Projection) -> Iterator[RenderableType]:
    yield projection.state if projection.why is None else f"{projection.state}: {projection.why}"
    yield (
        f"head {projection.head}, published {projection.published}, applied {projection.applied};"
        f" {projection.lag_events} events and {projection.lag_seconds:.1f} s behind, {projection.rate:g} events/s,"
        f" last moved {_ago(projection.moved_at, projection)}"
    )
    partitions = Table("partition", "published", "applied", "events", "seconds", "last moved", "projector")
    for one in projection.partitions:
        partitions.add_row(
            *map(str, (one.partition, one.published, one.reached, one.lag_events, f"{one.lag_seconds:.1f}")),
            _ago(one.moved_at, projection),
            one.projector or "-",
        )
    yield partitions
    projectors = Table("projector", "state", "partitions", "events/s", "seen")
    for one in projection.projectors:
        state = one.state if one.problem is None else f"{one.state}: {one.problem}"
        numbers = ", ".join(map(str, one.partitions)) or "-"
        projectors.add_row(one.instance, state, numbers, f"{one.rate:g}", f"{one.seen:.1f} s ago")
    if projection.projectors:
        yield projectors


def _ago(moment: datetime | None, projection: Projection) -> str:
    return "never" if moment is None else f"{(projection.checked_at - moment).total_seconds():.1f} s ago"
