"""Commands that erase persons, and list whom was erased."""

from pathlib import Path
from typing import Annotated

import typer

from muster.answers import Answer, answering
from muster.failures import CannotRun
from muster.operator import OperatorOption, operator_named
from muster.target import target_settings

PANEL = "Any deployment"

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
@answering
def erase(
    user: Annotated[str | None, typer.Argument(metavar="ID", help="The user's id.")] = None,
    *,
    reason: Annotated[
        str | None, typer.Option(help="Why: kept with the receipt for ever, in the clear, so it must name nobody.")
    ] = None,
    again: Annotated[
        Path | None,
        typer.Option(
            "--again", metavar="FILE", help="Whom `muster erasures` listed: after an older dump was restored."
        ),
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="How many seconds it may take to be complete.")] = 30,
    operator: OperatorOption = None,
) -> Answer:
    """Erase a person for good, living or deleted, and print the receipt. It cannot be taken back.

    What is recorded is done: the same command, or the command API by itself, goes on where one that was killed has
    ended. DATABASE_URL, KEK and EMAIL_INDEX_KEY are the command API's.

    Exits with 0 when it is complete; 1 when there is no such user, or it is still to be completed; 2 when something it
    needs is missing.
    """
    # what it alone needs: the other commands start faster without it
    from muster.erasing import erase_again, erase_person  # noqa: PLC0415

    settings, who = target_settings(), operator_named(operator)
    if again is not None and user is None:
        return erase_again(settings, again, operator=who, reason=reason, wait=wait)
    if user is None or again is not None:
        raise CannotRun("give the user's ID, or --again FILE")
    return erase_person(settings, user, operator=who, reason=reason, wait=wait)


@app.command(rich_help_panel=PANEL)
@answering
def erasures() -> Answer:
    """Print the receipt of every erasure, a line of JSON each, the oldest first.

    Keep them outside the database: `muster erase --again` takes them after a dump was restored that is older than an
    erasure. DATABASE_URL is the command API's, the query API's or the projector's.
    """
    from muster.erasing import receipts  # noqa: PLC0415

    return receipts(target_settings())
