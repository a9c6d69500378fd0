"""Commands about the log's tree: who watches it from elsewhere, and what an operator may do about it."""

import time
from pathlib import Path
from typing import Annotated

import typer

from muster.answers import Answer, Finding, answering, say

PANEL = "Any deployment"

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
@answering
def witness(
    url: Annotated[str, typer.Argument(help="Of the query API.")],
    *,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The log's key, as /proofs/key gave it once.")],
    state: Annotated[Path, typer.Option("--state", metavar="FILE", help="Where the last checkpoint is kept.")],
    every: Annotated[
        float | None, typer.Option(min=1, metavar="SECONDS", help="Go on looking, until something is wrong.")
    ] = None,
) -> Answer:
    """Keep the last checkpoint on another machine, and notice a history that was forked or rolled back.

    Whoever has the database and its keys can sign another history, but not one that adds to what a witness has seen. It
    needs neither a database nor a token.

    Exits with 0 when the log adds to what was seen; 1 when it does not: FILE.contradiction then has what was shown; 2
    when it could not be asked.
    """
    from muster.witnessing import Contradiction, look, read_key  # noqa: PLC0415

    verifier = read_key(key)
    while True:
        try:
            seen = look(url, verifier, state)
        except Contradiction as found:
            return Answer(result={"seen": found.code}, findings=[Finding(code=found.code, detail=str(found))])
        size, root = seen.checkpoint.size, seen.checkpoint.root.hex()
        words = f"{seen.kind}: {size:,} events, {size - seen.before:,} more than before"
        if every is None:
            result = {"seen": seen.kind, "before": seen.before, "size": size, "root": root}
            return Answer(result=result, words=[words])
        say(words)
        time.sleep(every)
