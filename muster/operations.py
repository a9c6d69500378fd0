"""`muster operations`: what operators did, who, when, with which parameters and how it ended."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson
from psycopg import errors
from rich.console import RenderableType
from rich.table import Table

from events.operations import Operation, listed
from muster.answers import Answer
from muster.failures import CannotRun
from muster.target import on_database
from runtime.settings import Settings


def operations_of(settings: Settings, *, operator: str | None, operation: str | None, limit: int) -> Answer:
    """Raises CannotRun, Unavailable and psycopg's errors."""
    try:
        found = asyncio.run(
            on_database(
                settings,
                lambda connection: listed(connection, operator=operator, operation=operation, limit=limit),
            )
        )
    except errors.InsufficientPrivilege:
        raise CannotRun("the login of DATABASE_URL may not read the operations: give the command API's") from None
    return Answer(result={"operations": [_document(one) for one in found]}, words=[_words(found)])


def _document(operation: Operation) -> Mapping[str, Any]:
    return {name: _time(value) if isinstance(value, datetime) else value for name, value in asdict(operation).items()}


def _words(operations: list[Operation]) -> RenderableType:
    if not operations:
        return "no operation is recorded"
    table = Table("at", "operator", "operation", "outcome", "took", "with")
    for one in operations:
        took = "" if one.ended_at is None else f"{(one.ended_at - one.at).total_seconds():.1f} s"
        table.add_row(_time(one.at), one.operator, one.operation, one.outcome, took, _with(one))
    return table


def _with(operation: Operation) -> str:
    told = {**operation.parameters, **(operation.result or {})}
    return ", ".join(f"{name}={orjson.dumps(value).decode()}" for name, value in told.items() if value is not None)


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"
