import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muster.answers import Answer, answering
from muster.failures import CannotRun, Refused
from muster.operator import OperatorOption, operator_named
from muster.target import target_settings
from runtime import failpoints
from runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from projector.comparing import Difference
    from projector.measured import Progress
    from projector.rebuild import Rebuilt
    from runtime.database import Connection

OPERATION = "rebuild"

app = typer.Typer(
    help="Make the read model anew from the log, without an outage.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command()
@answering
def users(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build and compare, but swap nothing; the next run goes on from there.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop an unfinished build first.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Drop an unfinished build and end.")] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that read the log.", show_default="one a core")
    ] = os.cpu_count() or 1,
    operator: OperatorOption = None,
) -> Answer:
    """Build the table of users from the log beside the live one, compare them, and swap them in one transaction.

    Readers and writers go on all the time. A run that was killed is gone on with where it stopped. DATABASE_URL and KEK
    (or their _FILE forms) are the projector's; nothing but PostgreSQL need run.

    Exits with 0 when it is done, whatever differs; 1 when it was refused; 2 when something it needs is missing.
    """
    if abandon and (dry_run or fresh):
        raise CannotRun("--abandon goes with neither --dry-run nor --fresh", code="usage")
    settings, name = target_settings("projector"), operator_named(operator)
    try:
        failpoints.arm(settings.failpoints)
    except ValueError as error:
        raise CannotRun(str(error)) from None
    if abandon:
        return asyncio.run(_abandon(settings, name))
    return asyncio.run(_rebuild(settings, name, dry_run=dry_run, fresh=fresh, workers=workers))


async def _rebuild(settings: Settings, operator: str, *, dry_run: bool, fresh: bool, workers: int) -> Answer:
    # each command imports what it alone needs: the others start faster without it
    from events.keyring import open_keyring  # noqa: PLC0415
    from muster.progress import display  # noqa: PLC0415
    from projector.measured import Progress  # noqa: PLC0415
    from projector.rebuild import Rebuild, begun, partitions_of  # noqa: PLC0415

    keyring = open_keyring(settings)
    with display() as shown:
        progress = Progress(shown.show)
        parameters = {"dry_run": dry_run, "fresh": fresh, "workers": workers}
        async with _recorded(settings, operator, parameters) as (connection, result):
            began = time.monotonic()
            build, new = await begun(connection, fresh=fresh)
            if not new:
                shown.note(
                    f"going on with build {build.id}, which is {build.phase}", {"phase": "resumed", "build": build.id}
                )
            rebuild = Rebuild(
                settings, keyring, connection, progress, partitions=await partitions_of(connection, settings)
            )
            ticking = asyncio.create_task(_tick(progress, shown.pulse))
            try:
                rebuilt = await rebuild.run(build, workers=workers, dry_run=dry_run)
            finally:
                ticking.cancel()
            result.update(_summary(rebuilt, time.monotonic() - began))
    return _answer(rebuilt, result, resumed=not new)


async def _abandon(settings: Settings, operator: str) -> Answer:
    from projector import builds  # noqa: PLC0415

    async with _recorded(settings, operator, {"abandon": True}) as (connection, result):
        build = await builds.unfinished(connection)
        if build is not None:
            await builds.abandon(connection, build)
        result["build"] = None if build is None else build.id
    return Answer(result=result, words=["nothing is being built" if build is None else f"build {build.id} is dropped"])


@asynccontextmanager
async def _recorded(
    settings: Settings, operator: str, parameters: Mapping[str, Any]
) -> "AsyncGenerator[tuple[Connection, dict[str, Any]]]":
    """Lend the connection of the only rebuild, and a place for its result; record both ends in log.operations.

    Raises what a command ends with.
    """
    from events import operations  # noqa: PLC0415
    from events.keyring import WrongKey  # noqa: PLC0415
    from muster.recorded import recorded  # noqa: PLC0415
    from projector.builds import BuildGone  # noqa: PLC0415
    from projector.lease import RebuildUnderWay, leased  # noqa: PLC0415
    from projector.range_workers import WorkerDied  # noqa: PLC0415
    from projector.rebuild import TooManyHeldBack  # noqa: PLC0415
    from projector.swapping import NotWhole  # noqa: PLC0415

    try:
        async with leased(settings, operator) as connection:
            await operations.give_up_unfinished(connection, OPERATION)
            refusals = (NotWhole, TooManyHeldBack)
            async with recorded(settings, operator, OPERATION, parameters, refusals=refusals) as result:
                yield connection, result
    except RebuildUnderWay as error:
        raise Refused(str(error), code="under_way") from None
    except TooManyHeldBack as error:
        raise Refused(str(error), code="too_many_held_back") from None
    except NotWhole as error:
        raise Refused(
            f"the build is not whole and was not swapped in: {error}; begin anew with --fresh", code="not_whole"
        ) from None
    except WrongKey as error:
        raise CannotRun(str(error), code="wrong_key") from None
    except (BuildGone, WorkerDied) as error:
        raise CannotRun(str(error)) from None


async def _tick(progress: "Progress", pulse: float) -> None:
    while True:
        await asyncio.sleep(pulse)
        progress.tell()


def _summary(rebuilt: "Rebuilt", seconds: float) -> dict[str, Any]:
    return {
        "events": rebuilt.position,
        "users": rebuilt.users,
        "seconds": round(seconds, 2),
        "differences": rebuilt.differences,
        "parked": rebuilt.parked,
        "swapped": rebuilt.swapped,
    }


def _answer(rebuilt: "Rebuilt", summary: Mapping[str, Any], *, resumed: bool) -> Answer:
    ending = "swapped in" if rebuilt.swapped else "not swapped in: the next run goes on with it"
    differ = f"{summary['differences']} differences, {summary['parked']} held back"
    return Answer(
        result={**summary, "resumed": resumed, "differing": [asdict(one) for one in rebuilt.shown]},
        words=[
            *(_line(one) for one in rebuilt.shown),
            f"{summary['events']:,} events, {summary['users']:,} users, {summary['seconds']} s; {differ}; {ending}",
        ],
    )


def _line(one: "Difference") -> str:
    where = ", ".join(one.columns) if one.live_version and one.next_version else "the whole row"
    return (
        f"user {one.user_id} differs in {where}: live version {one.live_version} (position {one.live_position}),"
        f" rebuilt version {one.next_version} (position {one.next_position})"
    )
