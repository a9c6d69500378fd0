"""`muster rebuild users`, and what it tells."""

import json
from typing import Any

from tests.integration.muster.conftest import Muster, Told


async def rebuild(muster: Muster, *options: str, **variables: str) -> Told:
    return await muster("rebuild", "users", "--workers", "1", "--json", *options, **variables)


def lines(told: Told) -> list[dict[str, Any]]:
    """How far it was, time and again."""
    return told.records


def ending(told: Told) -> dict[str, Any]:
    """What a rebuild that was done came to, but for what the clock and earlier runs have to do with."""
    assert told.status == 0, told.stderr
    result = told.result
    assert result["seconds"] > 0
    return {name: result[name] for name in ("events", "users", "differences", "parked", "swapped")}


def error(told: Told) -> str:
    """Why there is nothing that it came to."""
    envelope = json.loads(told.stdout)
    assert (envelope["ok"], envelope["exit_code"], envelope["result"]) == (False, told.status, None)
    [one] = envelope["errors"]
    assert told.stderr.splitlines()[-1] == f"muster: {one['detail']}"
    return one["detail"]
