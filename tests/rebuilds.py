"""`muster rebuild users`, and what it tells."""

import json
from typing import Any

from tests.integration.muster.conftest import Muster, Told


async def rebuild(muster: Muster, *options: str, **variables: str) -> Told:
    return await muster("rebuild", "users", "--workers", "1", *options, **variables)


def lines(told: Told) -> list[dict[str, Any]]:
    return [json.loads(line) for line in told.stdout.splitlines()]


def ending(told: Told) -> dict[str, Any]:
    """The last line of a rebuild that was done, without what the clock has to do with."""
    assert told.status == 0, told.stderr
    last = lines(told)[-1]
    assert last.pop("phase") == "done"
    assert last.pop("seconds") > 0
    return last
