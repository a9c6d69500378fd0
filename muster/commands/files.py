"""Commands that carry users and logs into a deployment and out of it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from muster.answers import Answer, answering
from muster.operator import OperatorOption, operator_named
from muster.target import target_settings

PANEL = "Any deployment"

app = typer.Typer()


class ExportFormat(StrEnum):
    JSONL = "jsonl"
    PARQUET = "parquet"


@app.command("import", rich_help_panel=PANEL)
@answering
def import_file(
    file: Annotated[Path, typer.Argument(help="users.ndjson (as POST /users takes them, one a line), or users.csv.")],
    *,
    check: Annotated[bool, typer.Option("--check", help="Only say what would be refused; write nothing.")] = False,
    reason: Annotated[
        str | None, typer.Option(help="Why: kept with each event for ever, in the clear, so it must name nobody.")
    ] = None,
    operator: OperatorOption = None,
) -> Answer:
    """Create the users of a file: by the same rules as one at a time, as the same events, in batches.

    A line that is refused is told, and stops no other. The same file again goes on where a run that was killed has
    ended, within IDEMPOTENCY_TTL. DATABASE_URL, KEK and EMAIL_INDEX_KEY are the command API's.

    Exits with 0 when all are there; 1 when lines were refused; 2 when something it needs is missing.
    """
    from muster.importing import import_users  # noqa: PLC0415

    return import_users(target_settings(), file, check=check, operator=operator_named(operator), reason=reason)


@app.command(rich_help_panel=PANEL)
@answering
def export(
    folder: Annotated[Path, typer.Argument(help="An empty one, or one to make.")],
    *,
    kind: Annotated[ExportFormat, typer.Option("--format", help="What other tools read.")] = ExportFormat.JSONL,
    since: Annotated[
        str | None, typer.Option(metavar="POSITION|TIME", help="The first event; the log's by default.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="POSITION|TIME", help="The last event; the log's by default.")
    ] = None,
    opened: Annotated[
        bool, typer.Option("--opened", help="With personal data in the clear; Parquet is always so.")
    ] = False,
    operator: OperatorOption = None,
) -> Answer:
    """Write the log, as it is at this moment, to files with a manifest: JSON lines as stored, or opened for reading.

    As stored, what is personal stays sealed, and `muster import-log` makes it a log again. DATABASE_URL, and KEK for
    what is to be opened, are the projector's.
    """
    from muster.exporting import Asked, export_log  # noqa: PLC0415

    asked = Asked(
        folder=folder,
        format=kind.value,
        since=since,
        as_of=as_of,
        opened=opened or kind is ExportFormat.PARQUET,
    )
    return export_log(target_settings("projector"), asked, operator_named(operator))


@app.command("import-log", rich_help_panel=PANEL)
@answering
def import_exported_log(
    folder: Annotated[Path, typer.Argument(help="What `muster export` wrote.")],
    *,
    operator: OperatorOption = None,
) -> Answer:
    """Restore an export into an empty database: all of it, or nothing.

    DATABASE_URL is the owner's, as for `muster migrate`; KEK and EMAIL_INDEX_KEY those that the log was written with.
    Passwords are in no log: users need new ones. Then make the read model: `muster rebuild users`.
    """
    from muster.log_import import import_log  # noqa: PLC0415

    return import_log(target_settings(), folder, operator_named(operator))
