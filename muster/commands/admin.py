import asyncio
from pathlib import Path
from typing import Annotated

import typer

from muster.answers import Answer, answering
from muster.entering import entered_password
from muster.operator import OperatorOption, operator_named
from muster.target import target_settings

app = typer.Typer(help="Make administrators.", no_args_is_help=True, rich_markup_mode="markdown")


@app.command()
@answering
def create(
    email: Annotated[str, typer.Option(help="The e-mail address to log in with.")],
    *,
    display_name: Annotated[str | None, typer.Option(help="How the administrator is called.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Where the password is; else it is asked for, or read from a pipe.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why: kept with the event for ever, in the clear, so it must name nobody.")
    ] = None,
    operator: OperatorOption = None,
) -> Answer:
    """Make an administrator: an event in the log like any other, with the roles admin and user.

    DATABASE_URL, KEK and EMAIL_INDEX_KEY (or their _FILE forms) are the command API's.
    """
    # what it alone needs: the other commands start faster without it
    from muster.administrators import create_administrator  # noqa: PLC0415

    settings = target_settings()
    password = entered_password(password_file, twice=True)
    outcome = asyncio.run(
        create_administrator(
            settings,
            email=email,
            password=password,
            display_name=display_name,
            operator=operator_named(operator),
            reason=reason,
        )
    )
    user, position = outcome.user, outcome.position
    return Answer(
        result={"user_id": str(user.id), "email": user.email, "position": position},
        words=[f"{user.email} is an administrator: id {user.id}, position {position}"],
    )
