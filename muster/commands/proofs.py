"""Commands about the log's tree: who watches it from elsewhere, and what an operator may do about it."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.answers import Answer, Finding, answering, say
from muster.failures import Refused
from muster.operator import OperatorOption, operator_named
from muster.target import on_database, target_settings
from runtime.database import Connection

if TYPE_CHECKING:
    from events.proofs.storage import Tree

PANEL = "Any deployment"

app = typer.Typer()
group = typer.Typer(
    help="The log's tree: show it, and begin another when what was signed was lost.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


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


@group.command("show")
@answering
def show_tree() -> Answer:
    """Say what the log is known by, and how far its tree goes."""
    from events.proofs.storage import tree_of  # noqa: PLC0415

    tree = asyncio.run(on_database(target_settings(), tree_of))
    if tree is None:
        raise Refused("there is no tree yet: a running command API begins it", code="no_tree")
    result = {"origin": tree.origin, "generation": tree.generation, "size": tree.size, "key": str(tree.verifier)}
    return Answer(result=result, words=[f"{tree.origin}: {tree.size:,} events", str(tree.verifier)])


@group.command("begin-anew")
@answering
def begin_anew(
    *,
    reason: Annotated[str, typer.Option(help="Why what was signed is not to be had again; kept for ever.")],
    operator: OperatorOption = None,
) -> Answer:
    """Give the log another name and tree, after events that were signed were lost for good.

    An integrator that meets a checkpoint that the log does not lead to signs nothing more. If the events cannot be
    restored, this is the way on: everybody who kept the log's key or a checkpoint sees that the history has a break.
    """
    from events import operations  # noqa: PLC0415
    from events.proofs import storage  # noqa: PLC0415

    async def begin(connection: Connection) -> "Tree":
        async with connection.transaction():
            tree = await storage.begin_anew(connection)
            if tree is None:
                raise Refused("there is no tree yet: nothing was signed", code="no_tree")
            parameters = {"origin": tree.origin, "reason": reason}
            await operations.record(connection, operator_named(operator), "proofs.begin-anew", parameters, "done")
        return tree

    tree = asyncio.run(on_database(target_settings(), begin))
    return Answer(
        result={"origin": tree.origin, "key": str(tree.verifier)},
        words=[f"the log is {tree.origin} now: give its new key to whoever checks it", str(tree.verifier)],
    )
