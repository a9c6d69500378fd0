import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import orjson
import typer

from muster.audit_log import log_to_stderr
from muster.failures import CannotRun, Refused
from muster.operator import OperatorOption, operator_named
from muster.target import on_database, target_settings
from runtime import failpoints
from runtime.database import Connection
from runtime.settings import Settings

if TYPE_CHECKING:
    from projector.parked import Parked
    from projector.retrying import Retried

T = TypeVar("T")

app = typer.Typer(
    help="Events that cannot be applied or published, set aside with their user's later ones.",
    callback=log_to_stderr,
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Which = Annotated[str, typer.Argument(metavar="USER|NUMBER", help="The user's id, or the number that `list` shows.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

# how long a relay that leads may take to look
RELAY_WITHIN = 10.0
LOOK_EVERY = 0.1


@app.command("list")
def list_parked(*, as_json: AsJson = False) -> None:
    """Name what is parked, the longest first. Exits with 1 when there is anything."""
    # each command imports what it alone needs: the others start faster without it
    from muster.parked_words import line_of  # noqa: PLC0415
    from projector.parked import all_parked  # noqa: PLC0415

    found = _on_database(_settings(), all_parked)
    if as_json:
        print(orjson.dumps({"parked": [asdict(one) for one in found]}).decode())
    elif not found:
        print("nothing is parked")
    else:
        for one in found:
            print(line_of(one))
    if found:
        raise typer.Exit(1)


@app.command()
def show(which: Which, *, as_json: AsJson = False) -> None:
    """Tell all about one: why, since when, what waits behind it, and what the topic held."""
    from muster.parked_words import lines_of, told  # noqa: PLC0415

    async def look(connection: Connection) -> list[dict[str, Any]]:
        return [await told(connection, one) for one in await _find(connection, which)]

    parked = _on_database(_settings(), look)
    if as_json:
        print(orjson.dumps({"parked": parked}).decode())
    else:
        print("\n\n".join("\n".join(lines_of(one)) for one in parked))


@app.command()
def retry(
    which: Annotated[str | None, typer.Argument(metavar="USER|NUMBER", help="As `list` shows it.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Whatever is parked.")] = False,
    operator: OperatorOption = None,
) -> None:
    """Try again, from the log, in order. Exits with 1 when something is held back still."""
    if (which is None) == (not everything):
        raise CannotRun("say which one to try again, or --all")
    from events.keyring import open_keyring  # noqa: PLC0415
    from projector import retrying  # noqa: PLC0415

    settings, name = _settings(), operator_named(operator)
    keyring = open_keyring(settings)

    async def again(connection: Connection, one: "Parked") -> "Retried | None":
        if one.held_back_from == "topics":
            await retrying.ask_relay(connection, asdict(one), operator=name)
            return None
        return await retrying.retry(connection, keyring, asdict(one), operator=name)

    _each(settings, which, again)


@app.command()
def discard(
    which: Which,
    *,
    reason: Annotated[str | None, typer.Option(help="Why, for the record; else it is asked for.")] = None,
    operator: OperatorOption = None,
) -> None:
    """Give an event up for good, and carry on with what waits behind it. The log keeps it, and your reason.

    Every event carries its user's whole record: the next one makes the record whole again. In the place of a record of
    the topic that cannot be read, what the log has is applied.
    """
    from events.keyring import open_keyring  # noqa: PLC0415
    from projector import retrying  # noqa: PLC0415

    settings, name = _settings(), operator_named(operator)
    keyring = open_keyring(settings)
    told = _reason(reason)

    async def give_up(connection: Connection, one: "Parked") -> "Retried | None":
        if one.held_back_from == "topics":
            await retrying.ask_relay(connection, asdict(one), operator=name, discard=told)
            return None
        return await retrying.discard(connection, keyring, asdict(one), operator=name, reason=told)

    _each(settings, which, give_up)


def _each(
    settings: Settings, which: str | None, work: "Callable[[Connection, Parked], Awaitable[Retried | None]]"
) -> None:
    """Do it to each of them and say what came of it; exits with 1 when something is held back still."""
    from muster.parked_words import name_of  # noqa: PLC0415
    from projector.parked import all_parked  # noqa: PLC0415
    from projector.retrying import NothingToRetry, NotParked  # noqa: PLC0415

    async def find(connection: Connection) -> "Sequence[Parked]":
        return await (all_parked(connection) if which is None else _find(connection, which))

    held_back = False
    for one in _on_database(settings, find):
        try:
            retried = _on_database(settings, lambda connection, one=one: work(connection, one))
        except NotParked:
            print(f"{name_of(one)}: is not parked any more")
            continue
        except NothingToRetry:
            print(f"{name_of(one)}: holds nobody back, and there is nothing to apply: discard it once it is seen to")
            continue
        stopper = _relays_stopper(settings, one) if one.held_back_from == "topics" else None
        if retried is not None and retried.stopper is not None:
            stopper = str(retried.stopper["reason"])
        held_back = held_back or stopper is not None
        print(f"{name_of(one)}: {_outcome(retried) if stopper is None else f'is held back still: {stopper}'}")
    if held_back:
        raise typer.Exit(1)


def _outcome(retried: "Retried | None") -> str:
    return "done" if retried is None else f"applied up to version {retried.version}"


def _relays_stopper(settings: Settings, one: "Parked") -> str | None:
    """Wait for the relay to have tried; gives why the user is parked still."""
    deadline = time.monotonic() + RELAY_WITHIN

    async def look(connection: Connection) -> dict[str, Any] | None:
        cursor = await connection.execute("SELECT retry, reason FROM log.parked WHERE user_id = %s", (one.user_id,))
        return await cursor.fetchone()

    while (row := _on_database(settings, look)) is not None and row["retry"]:
        if time.monotonic() > deadline:
            return "no relay has looked yet; the one that leads next will"
        time.sleep(LOOK_EVERY)
    return None if row is None else str(row["reason"])


async def _find(connection: Connection, which: str) -> "list[Parked]":
    from projector.parked import all_parked  # noqa: PLC0415

    found = [one for one in await all_parked(connection) if which in {str(one.user_id), str(one.id)}]
    if not found:
        raise Refused(f"nothing is parked as {which}: `muster parked list` names what is")
    return found


def _reason(option: str | None) -> str:
    reason = option
    if reason is None and sys.stdin.isatty():
        reason = str(typer.prompt("Reason", err=True))
    if reason is None or not reason.strip():
        raise CannotRun("say why: --reason TEXT; it is kept in the record of operations")
    return reason.strip()


def _settings() -> Settings:
    settings = target_settings("projector")
    failpoints.arm(settings.failpoints)
    return settings


def _on_database(settings: Settings, work: Callable[[Connection], Awaitable[T]]) -> T:
    return asyncio.run(on_database(settings, work))
