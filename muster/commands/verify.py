import asyncio
import logging
from pathlib import Path
from typing import Annotated

import typer

from muster.answers import Answer, answering
from muster.failures import CannotRun
from muster.target import target_settings

app = typer.Typer(
    help="Check that nothing was altered, and that what was made of the log is what the log says.",
    rich_markup_mode="markdown",
)

KeyOption = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="The log's key that you kept, as /proofs/key gave it.")
]
CheckpointOption = Annotated[
    Path | None, typer.Option("--checkpoint", metavar="FILE", help="A checkpoint that you kept; it needs --key.")
]
EveryOption = Annotated[bool, typer.Option("--all", help="Print every difference, not only the first.")]
TopicsOption = Annotated[bool, typer.Option("--topics/--no-topics", help="Compare the topics too.")]
TailOption = Annotated[int, typer.Option(min=1, help="How many records of each partition of the history topic.")]


@app.callback(invoke_without_command=True)
@answering
def verify_all(
    *,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="DIR", help="What `muster export` wrote: it needs no database."),
    ] = None,
    key: KeyOption = None,
    checkpoint: CheckpointOption = None,
) -> Answer:
    """Without a command: first `log`, then `model`. With --export: an export, on any machine, which needs --key.

    Exits with 0 when nothing is wrong, 1 with the first that is, 2 when it could not be checked.
    """
    if export is None:
        log = _log(key, checkpoint)
        model = _model(every=False, topics=True, tail=1000)
        result = {"log": log.result, "model": model.result}
        return Answer(result=result, words=[*log.words, *model.words], findings=[*log.findings, *model.findings])
    if key is None:
        raise CannotRun("--export needs --key: what vouches for the export is a signature")
    from muster.verification import verify_export  # noqa: PLC0415

    return verify_export(export, key=key, checkpoint=checkpoint)


@app.command("log")
@answering
def verify_log(*, key: KeyOption = None, checkpoint: CheckpointOption = None) -> Answer:
    """Check every event of the log against its tree, and the tree against every checkpoint that was signed.

    Positions and each user's versions have no gap; every event is the one that was signed. --key and --checkpoint are
    what you kept elsewhere: only they show a history that was written anew from end to end.

    Exits with 0 when nothing is wrong, 1 with the first position that is, 2 when it could not be checked.
    """
    return _log(key, checkpoint)


@app.command("model")
@answering
def verify_model(*, every: EveryOption = False, topics: TopicsOption = True, tail: TailOption = 1000) -> Answer:
    """Compare every row of the live read model with the log, as both are at one moment, while all goes on.

    The events of each user are folded, and must give what they carry and what the row has. Then the last records of
    users.events.v1 and all of users.snapshot.v1 are compared with the log.

    Exits with 0 when there is no difference, 1 when there is one, 2 when it could not be checked.
    """
    return _model(every=every, topics=topics, tail=tail)


def _log(key: Path | None, checkpoint: Path | None) -> Answer:
    # what they alone need: the other commands start faster without it
    from muster.verification import verify_log  # noqa: PLC0415
    from muster.witnessing import read_checkpoint, read_key  # noqa: PLC0415

    if checkpoint is not None and key is None:
        raise CannotRun("--checkpoint needs --key: the key that signed it")
    pinned = read_key(key) if key is not None else None
    known = read_checkpoint(checkpoint, pinned) if checkpoint is not None and pinned is not None else None
    return asyncio.run(verify_log(target_settings("projector"), key=pinned, checkpoint=known))


def _model(*, every: bool, topics: bool, tail: int) -> Answer:
    from muster.verification import verify_model  # noqa: PLC0415

    # what it would say of a broker is in the one line that is said
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return asyncio.run(verify_model(target_settings("projector"), every=every, topics=topics, tail=tail))
