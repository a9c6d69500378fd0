"""Long operations are recorded twice, as they begin and as they end: one that was killed stays under way."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg

from events import operations
from muster.target import on_database
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.settings import Settings


@asynccontextmanager
async def recorded(
    settings: Settings,
    operator: str,
    operation: str,
    parameters: Mapping[str, Any],
    *,
    refusals: tuple[type[Exception], ...] = (),
) -> AsyncGenerator[dict[str, Any]]:
    """Record an operation; what is put into the dictionary that is lent is told of it, however it ends.

    It is done when nothing is raised, refused by one of `refusals`, and failed by whatever else. The record is written
    on connections of its own: none is idle for as long as the operation takes. Raises what on_database does.
    """
    began = await on_database(
        settings, lambda connection: operations.begin(connection, operator, operation, parameters)
    )
    result: dict[str, Any] = {}
    try:
        yield result
    except BaseException as error:
        outcome = "refused" if isinstance(error, refusals) else "failed"
        told = {**result, "why": _why(error)}
        # the database may be what failed
        with suppress(psycopg.Error, Unavailable, OutcomeUnknown):
            await on_database(settings, lambda connection: operations.end(connection, began, outcome, told))
        raise
    await on_database(settings, lambda connection: operations.end(connection, began, "done", result))


def _why(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "interrupted"
    # the record is kept for ever, and what the database says may quote a row
    return type(error).__name__ if isinstance(error, psycopg.Error) else str(error) or type(error).__name__
