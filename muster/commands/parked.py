import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from muster.answers import Answer, Finding, Parts, answering
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
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Which = Annotated[str, typer.Argument(metavar="USER|NUMBER", help="The user's id, or the number that `list` shows.")]

# how long a relay that leads may take to look
RELAY_WITHIN = 10.0
LOOK_EVERY = 0.1


@app.command("list")
@answering
def list_parked() -> Answer:
    """Name what is parked, the longest first. Exits with 1 when there is anything."""
    # each command imports what it alone needs: the others start faster without it
    from muster.parked_words import line_of  # noqa: PLC0415
    from projector.parked import all_parked  # noqa: PLC0415

    found = _on_database(_settings(), all_parked)
    return Answer(
        result={"parked": [asdict(one) for one in found]},
        words=map(line_of, found) if found else ["nothing is parked"],
        findings=[Finding(code="parked", detail=f"parked: {len(found)}")] if found else [],
    )


@app.command()
@answering
def show(which: Which) -> Answer:
    """Tell all about one: why, since when, what waits behind it, and what the topic held."""
    from muster.parked_words import lines_of, told  # noqa: PLC0415

    async def look(connection: Connection) -> list[dict[str, Any]]:
        return [await told(connection, one) for one in await _find(connection, which)]

    parked = _on_database(_settings(), look)
    return Answer(result={"parked": parked}, words=["\n\n".join("\n".join(lines_of(one)) for one in parked)])


@app.command()
@answering
def retry(
    which: Annotated[str | None, typer.Argument(metavar="USER|NUMBER", help="As `list` shows it.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Whatever is parked.")] = False,
    operator: OperatorOption = None,
) -> Answer:
    """Try again, from the log, in order. Exits with 1 when something is held back still."""
    if (which is None) == (not everything):
        raise CannotRun("say which one to try again, or --all", code="usage")
    from events.keyring import open_keyring  # noqa: PLC0415
    from projector import retrying  # noqa: PLC0415

    settings, name = _settings(), operator_named(operator)
    keyring = open_keyring(settings)

    async def again(connection: Connection, one: "Parked") -> "Retried | None":
        if one.held_back_from == "topics":
            await retrying.ask_relay(connection, asdict(one), operator=name)
            return None
        return await retrying.retry(connection, keyring, asdict(one), operator=name)

    return _each(settings, which, again)


@app.command()
@answering
def discard(
    which: Which,
    *,
    reason: Annotated[str | None, typer.Option(help="Why, for the record; else it is asked for.")] = None,
    operator: OperatorOption = None,
) -> Answer:
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

    return _each(settings, which, give_up)


def _each(
    settings: Settings, which: str | None, work: "Callable[[Connection, Parked], Awaitable[Retried | None]]"
) -> Answer:
    """Do it to each of them; what is held back still is found."""
    from events.keyring import WrongKey  # noqa: PLC0415
    from muster.parked_words import name_of  # noqa: PLC0415
    from projector.parked import all_parked  # noqa: PLC0415
    from projector.retrying import NothingToRetry, NotParked  # noqa: PLC0415

    async def find(connection: Connection) -> "Sequence[Parked]":
        return await (all_parked(connection) if which is None else _find(connection, which))

    told, held_back = Parts(), list[Finding]()

    def tell(one: "Parked", outcome: str, words: str, **more: object) -> None:
        about = {"id": one.id, "user_id": one.user_id, "held_back_from": one.held_back_from}
        told.add({**about, "outcome": outcome, **more}, f"{name_of(one)}: {words}")

    for one in _on_database(settings, find):
        try:
            retried = _on_database(settings, lambda connection, one=one: work(connection, one))
        except WrongKey as error:
            raise CannotRun(str(error), code="wrong_key") from None
        except NotParked:
            tell(one, "not_parked", "is not parked any more")
            continue
        except NothingToRetry:
            tell(
                one,
                "nothing_to_retry",
                "holds nobody back, and there is nothing to apply: discard it once it is seen to",
            )
            continue
        stopper = _relays_stopper(settings, one) if one.held_back_from == "topics" else None
        if retried is not None and retried.stopper is not None:
            stopper = str(retried.stopper["reason"])
        if stopper is not None:
            tell(one, "held_back", f"is held back still: {stopper}", reason=stopper)
            held_back.append(Finding(code="held_back", detail=f"{name_of(one)} is held back still"))
        elif retried is None:
            tell(one, "done", "done")
        else:
            tell(one, "applied", f"applied up to version {retried.version}", version=retried.version)
    return Answer(result={"parked": told.documents}, findings=held_back)


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
        raise Refused(f"nothing is parked as {which}: `muster parked list` names what is", code="not_parked")
    return found


def _reason(option: str | None) -> str:
    reason = option
    if reason is None and sys.stdin.isatty():
        reason = str(typer.prompt("Reason", err=True))
    if reason is None or not reason.strip():
        raise CannotRun("say why: --reason TEXT; it is kept in the record of operations", code="usage")
    return reason.strip()


def _settings() -> Settings:
    settings = target_settings("projector")
    failpoints.arm(settings.failpoints)
    return settings


def _on_database(settings: Settings, work: Callable[[Connection], Awaitable[T]]) -> T:
    return asyncio.run(on_database(settings, work))
