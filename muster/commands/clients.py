import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer

from identity.roles import Scope
from muster.answers import Answer, answering
from muster.failures import CannotRun, Refused
from muster.operator import OperatorOption, operator_named
from muster.target import on_database, target_settings
from runtime.database import Connection

if TYPE_CHECKING:
    from identity.clients import ClientRecord, NewSecret

T = TypeVar("T")

app = typer.Typer(
    help="Services that log in with a secret of their own: create, list, rotate, disable.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

NameOrId = Annotated[str, typer.Argument(metavar="NAME|ID", help="The client's name or its id.")]


@app.command()
@answering
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What operators call it.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; once for each scope.")],
    operator: OperatorOption = None,
) -> Answer:
    """Make a client and print its id and secret. The secret is shown this once."""
    # each command imports what it alone needs: the others start faster without it
    from identity import clients  # noqa: PLC0415
    from identity.security_log import record  # noqa: PLC0415

    async def make(connection: Connection) -> "NewSecret":
        async with connection.transaction():
            made = await clients.create(connection, name, frozenset(scope))
            parameters = {"client": str(made.client_id), "name": name, "scopes": sorted(scope)}
            await _record(connection, operator, "clients.create", parameters)
        return made

    try:
        made = _on_database(make)
    except clients.NameTaken:
        raise Refused(f"another client has the name {name}", code="name_taken") from None
    except (clients.BadName, clients.ScopeNotForClients) as error:
        raise CannotRun(str(error.__doc__), code="usage") from None
    record("client.created", client=str(made.client_id), scope=" ".join(sorted(scope)))
    return _shown(made)


@app.command("list")
@answering
def list_clients() -> Answer:
    """Name all clients, with what they may do."""
    from identity.clients import all_clients  # noqa: PLC0415

    found = _on_database(all_clients)
    return Answer(result={"clients": [asdict(client) for client in found]}, words=map(_line, found))


@app.command()
@answering
def rotate(client: NameOrId, *, operator: OperatorOption = None) -> Answer:
    """Give a client a new secret. The old one and its tokens are void at once."""
    from identity import clients  # noqa: PLC0415
    from identity.security_log import record  # noqa: PLC0415

    found, secret = _on_client(client, clients.rotate, "clients.rotate", operator)
    if secret is None:
        raise Refused(f"{found.name} is disabled", code="client_disabled")
    record("client.rotated", client=str(found.id))
    return _shown(secret)


@app.command()
@answering
def disable(client: NameOrId, *, operator: OperatorOption = None) -> Answer:
    """Let a client log in no more. Its tokens are void within a second."""
    from identity import clients  # noqa: PLC0415
    from identity.security_log import record  # noqa: PLC0415

    found, disabled = _on_client(client, clients.disable, "clients.disable", operator)
    if not disabled:
        raise Refused(f"{found.name} is disabled already", code="client_disabled")
    record("client.disabled", client=str(found.id))
    return Answer(
        result={"client_id": str(found.id), "name": found.name}, words=[f"{found.name} ({found.id}) is disabled."]
    )


def _on_client(
    name_or_id: str, work: Callable[[Connection, UUID], Awaitable[T]], operation: str, operator: str | None
) -> "tuple[ClientRecord, T]":
    """Do it, and record that it was done, in one transaction; what gives nothing did nothing."""
    from identity.clients import find  # noqa: PLC0415

    async def run(connection: Connection) -> "tuple[ClientRecord, T]":
        found = await find(connection, name_or_id)
        if found is None:
            raise Refused(f"there is no client {name_or_id}: `muster clients list` names them", code="unknown_client")
        async with connection.transaction():
            done = await work(connection, found.id)
            if done:
                await _record(connection, operator, operation, {"client": str(found.id), "name": found.name})
        return found, done

    return _on_database(run)


async def _record(connection: Connection, operator: str | None, operation: str, parameters: Mapping[str, Any]) -> None:
    from events.operations import record  # noqa: PLC0415

    await record(connection, operator_named(operator), operation, parameters, "done")


def _on_database(work: Callable[[Connection], Awaitable[T]]) -> T:
    return asyncio.run(on_database(target_settings(), work))


def _line(client: "ClientRecord") -> str:
    state = "" if client.disabled_at is None else f"  disabled {client.disabled_at.astimezone(UTC):%Y-%m-%d}"
    return f"{client.id}  {client.name}  {' '.join(client.scopes)}{state}"


def _shown(secret: "NewSecret") -> Answer:
    result = {"client_id": str(secret.client_id), "client_secret": secret.client_secret}
    return Answer(result=result, words=[f"{name}={value}" for name, value in result.items()])
