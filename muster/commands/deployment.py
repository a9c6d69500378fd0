"""Commands about a deployment as a whole."""

import os
from pathlib import Path
from typing import Annotated

import typer

from muster.answers import Answer, answering
from muster.environment import secret_from
from muster.failures import CannotRun
from muster.target import target_settings, target_stack

PANEL = "Any deployment"

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
@answering
def migrate() -> Answer:
    """Bring the database to the newest schema and set the roles' passwords that are given.

    DATABASE_URL is the owner's; the passwords come from COMMAND_, QUERY_ and PROJECTOR_DATABASE_PASSWORD. Each may be
    in a file that the same name with _FILE names.
    """
    from migrations.apply import OldServer  # noqa: PLC0415
    from migrations.apply import migrate as apply  # noqa: PLC0415
    from muster.role_passwords import role_passwords_from  # noqa: PLC0415

    database_url = secret_from(os.environ, "DATABASE_URL") or target_stack().database_url
    passwords = role_passwords_from(os.environ)
    try:
        apply(database_url, role_passwords=passwords)
    except OldServer as error:
        raise CannotRun(str(error)) from None
    kept = "; passwords set: " + ", ".join(passwords) if passwords else ""
    return Answer(result={"passwords_set": [*passwords]}, words=[f"the database is at the newest schema{kept}"])


@app.command(rich_help_panel=PANEL)
@answering
def secrets(
    folder: Annotated[Path, typer.Argument(help="Where to make them; what is there stays.")],
) -> Answer:
    """Make the keys and database passwords that a deployment needs, each in a file of its own."""
    from muster.secret_files import make_secret_files  # noqa: PLC0415

    try:
        made = make_secret_files(folder)
    except OSError as error:
        raise CannotRun(f"{error.filename or folder}: {error.strerror or error}") from None
    return Answer(result={"made": [str(file) for file in made]}, words=[f"made {file}" for file in made])


@app.command(rich_help_panel=PANEL)
@answering
def doctor() -> Answer:
    """Check settings, keys, database, clocks, log, broker and topics, and say how to mend what is wrong.

    With the command API's environment, else the running development stack. Exits with 0 when nothing fails, else 1.
    """
    from muster.doctor import examined  # noqa: PLC0415

    return examined()


@app.command(rich_help_panel=PANEL)
@answering
def lag(
    *,
    max_seconds: Annotated[float, typer.Option(min=0, help="How old an event may get that is missing.")] = 10,
    max_events: Annotated[int | None, typer.Option(min=0, help="How many events may be missing at most.")] = None,
) -> Answer:
    """Say how far the read model is behind the log, and whether it moves: straight from the database.

    DATABASE_URL is the query API's or the projector's; the processes may be down.

    Exits with 0 when the projection moves, is within the bounds and holds nobody back; with 1 when it is stalled or
    beyond the bounds, or something is parked; with 2 when that could not be checked, which is not healthy.
    """
    from muster.lag import lag_of  # noqa: PLC0415

    return lag_of(target_settings("query_api"), max_seconds=max_seconds, max_events=max_events)


@app.command(rich_help_panel=PANEL)
@answering
def operations(
    *,
    by: Annotated[str | None, typer.Option("--by", metavar="OPERATOR", help="Only this one's.")] = None,
    operation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only these: rebuild, parked, parked.retry, keys, clients, ...")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
) -> Answer:
    """Say what operators did, the newest first: who, when, with which parameters, and how it ended.

    DATABASE_URL is the command API's or the projector's.
    """
    from muster.operations import operations_of  # noqa: PLC0415

    return operations_of(target_settings(), operator=by, operation=operation, limit=limit)
