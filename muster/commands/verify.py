import asyncio
import logging
from typing import Annotated

import typer

from muster.answers import Answer, answering
from muster.target import target_settings

app = typer.Typer(
    help="Compare what was made of the log with the log.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command("model")
@answering
def verify_model(
    *,
    every: Annotated[bool, typer.Option("--all", help="Print every difference, not only the first.")] = False,
    topics: Annotated[bool, typer.Option("--topics/--no-topics", help="Compare the topics too.")] = True,
    tail: Annotated[int, typer.Option(min=1, help="How many records of each partition of the history topic.")] = 1000,
) -> Answer:
    """Compare every row of the live read model with the log, as both are at one moment, while all goes on.

    The events of each user are folded, and must give what they carry and what the row has. Then the last records of
    users.events.v1 and all of users.snapshot.v1 are compared with the log.

    Exits with 0 when there is no difference, 1 when there is one, 2 when it could not be checked.
    """
    # what it alone needs: the other commands start faster without it
    from muster.verification import verify  # noqa: PLC0415

    # what it would say of a broker is in the one line that is said
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return asyncio.run(verify(target_settings("projector"), every=every, topics=topics, tail=tail))
