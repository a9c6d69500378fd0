import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from muster.target import on_database, target_settings

if TYPE_CHECKING:
    from query_api.projection import Projection

HEALTHY = frozenset({"live", "rebuilding"})


def lag(
    *,
    max_seconds: Annotated[float, typer.Option(min=0, help="How far behind it may be.")] = 10.0,
    max_events: Annotated[int | None, typer.Option(min=0, help="Likewise, in events.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Say where the read model stands in the log, straight from the database.

    Exits with 0 when it is live or rebuilding and within the bounds; with 1 when it is stalled, further behind, or has
    something parked; with 2 when that could not be checked. So it serves as a probe.
    """
    # what it alone needs: the other commands start faster without it
    from events.partitioning import check_partitions_setting  # noqa: PLC0415
    from query_api.projection import projection_of  # noqa: PLC0415
    from query_api.standing import read_standing  # noqa: PLC0415

    settings = target_settings("query_api")
    check_partitions_setting(settings)
    standing = asyncio.run(
        on_database(
            settings, lambda connection: read_standing(connection, settings.events_topic, settings.topic_partitions)
        )
    )
    projection = projection_of(standing)
    findings = _findings(projection, max_seconds=max_seconds, max_events=max_events)
    if as_json:
        print(projection.to_json().decode())
    else:
        _print(projection, findings)
    if findings:
        raise typer.Exit(1)


def _findings(projection: "Projection", *, max_seconds: float, max_events: int | None) -> list[str]:
    findings: list[str] = []
    if projection.kind not in {*HEALTHY, "catching-up"}:
        findings.append(f"{projection.state}: {projection.why}")
    if projection.parked.users and projection.kind != "parked":
        findings.append(f"{projection.parked.users} users are parked")
    if projection.lag_seconds > max_seconds:
        findings.append(f"{projection.lag_seconds:.1f} s behind, more than {max_seconds:g}")
    if max_events is not None and projection.lag_events > max_events:
        findings.append(f"{projection.lag_events} events behind, more than {max_events}")
    return findings


def _print(projection: "Projection", findings: list[str]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    console.print(projection.state if projection.why is None else f"{projection.state}: {projection.why}", markup=False)
    console.print(
        f"head {projection.head}, published {projection.published}, applied {projection.applied}:"
        f" {projection.lag_events} events and {projection.lag_seconds:.1f} s behind, {projection.rate:g} events/s"
    )
    table = Table(box=None, pad_edge=False)
    for column in ("partition", "published", "applied", "reached", "events behind", "s behind"):
        table.add_column(column, justify="right")
    table.add_column("last moved")
    table.add_column("projector")
    for one in projection.partitions:
        numbers = (one.partition, one.published, one.applied, one.reached, one.lag_events, f"{one.lag_seconds:.1f}")
        moved = "" if one.moved_at is None else f"{one.moved_at:%Y-%m-%dT%H:%M:%SZ}"
        table.add_row(*map(str, numbers), moved, one.projector or "nobody")
    console.print(table)
    for finding in findings:
        console.print(f"finding: {finding}", markup=False)
