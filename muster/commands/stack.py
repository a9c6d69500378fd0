"""Commands of the development stack."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from muster.answers import Answer, Finding, answering, say
from muster.failures import Refused
from muster.operator import OperatorOption, operator_named
from muster.target import target_home, target_settings, target_stack

PANEL = "The development stack"

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def run() -> None:
    """Run the whole development stack until Ctrl-C."""
    # each command imports what it alone needs: the others start faster without it
    from muster.listening import listening_from_environment  # noqa: PLC0415
    from muster.stack import run_stack  # noqa: PLC0415
    from muster.welcome import welcome  # noqa: PLC0415

    run_stack(target_home(), listening_from_environment(), say=say, welcome=lambda stack: say(welcome(stack)))


@app.command(rich_help_panel=PANEL)
@answering
def status() -> Answer:
    """Ask every process of the running stack whether it is ready. Exits with 1 when one is not."""
    from muster.readiness import unreadiness  # noqa: PLC0415

    stack = target_stack()
    urls = {"command_api": stack.command_url, "query_api": stack.query_url, "projector": stack.projector_url}
    wrongs = {process: unreadiness(url) for process, url in urls.items()}
    unready = [process for process, wrong in wrongs.items() if wrong is not None]
    return Answer(
        result={
            "processes": [
                {"name": process, "pid": stack.pids.get(process), "url": url, "problem": wrongs[process]}
                for process, url in urls.items()
            ]
        },
        words=[
            f"{process:12} pid {stack.pids.get(process, '?'):<8} {url:28} {wrongs[process] or 'ready'}"
            for process, url in urls.items()
        ],
        findings=[Finding(code="not_ready", detail=f"not ready: {', '.join(unready)}")] if unready else [],
    )


@app.command(rich_help_panel=PANEL)
@answering
def seed(
    users: Annotated[int, typer.Argument(min=1, metavar="N", help="How many users.")],
    *,
    seed: Annotated[int, typer.Option(help="Another number makes other users.")] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that seal; by default as many as there are cores.")
    ] = None,
) -> Answer:
    """Append N made-up users and N/2 further events to the log, straight into the database.

    Whoever runs it with the same seed on a log of the same length gets the same users, times and events; only keys and
    seals differ. Ended half-way, it leaves whole transactions. Refused in production.
    """
    from muster.seed import seed_users  # noqa: PLC0415

    return seed_users(target_settings(), users, seed=seed, workers=workers)


@app.command(rich_help_panel=PANEL)
@answering
def demo() -> Answer:
    """Tell the story of one user against the running stack, step by step."""
    from muster.demo import StepFailed, tell  # noqa: PLC0415

    try:
        steps = asyncio.run(tell(target_stack(), say))
    except StepFailed as failure:
        raise Refused(f"FAILED: {failure}", code="step_failed") from None
    return Answer(result={"steps": steps}, words=[f"\nAll {steps} steps went as they should."])


@app.command(rich_help_panel=PANEL)
@answering
def token(
    email: Annotated[str | None, typer.Option(help="Another user's than the stack's administrator's.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Where the user's password is; else it is asked for, or read from a pipe.")
    ] = None,
    operator: OperatorOption = None,
) -> Answer:
    """Log in and print an access token: TOKEN=$(muster token). It is recorded that it was issued."""
    from muster.entering import entered_password  # noqa: PLC0415
    from muster.issued import record_issue  # noqa: PLC0415
    from muster.login import WrongPassword, log_in  # noqa: PLC0415

    stack = target_stack()
    if email is None and password_file is None:
        password_file = Path(stack.admin_password_file)
    email = email or stack.admin_email
    try:
        issued = log_in(stack.command_url, email, entered_password(password_file, twice=False))
    except WrongPassword as error:
        raise Refused(f"{email}: {error}", code="wrong_password") from None
    record_issue(target_settings(), issued, operator_named(operator))
    return Answer(result={"access_token": issued}, words=[issued])


@app.command(rich_help_panel=PANEL)
@answering
def reset() -> Answer:
    """Delete the development stack's data."""
    home = target_home()
    home.drop()
    return Answer(result={"folder": str(home.folder)}, words=[f"{home.folder} is gone"])
