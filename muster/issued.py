"""Tokens that the command line hands out are recorded: whose, of which session, and to whom."""

import asyncio

import jwt

from events.operations import record
from muster.target import on_database
from runtime.settings import Settings

OPERATION = "token.issue"


def record_issue(settings: Settings, token: str, operator: str) -> None:
    """Raises Unavailable, OutcomeUnknown and psycopg's errors."""
    # the command API has just issued it: what it says is read, not judged
    claims = jwt.decode(token, options={"verify_signature": False})
    parameters = {name: claims[name] for name in ("sub", "sid", "scope", "exp")}
    asyncio.run(on_database(settings, lambda connection: record(connection, operator, OPERATION, parameters, "done")))
