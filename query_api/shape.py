"""Whether the read model's table is the one that this version reads."""

from typing import Final

import psycopg

from projector.read_model import SHAPE
from runtime.database import Session
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.health import Check
from runtime.logs import logger

LIVE: Final = "SELECT shape FROM read_model.builds WHERE state = 'live'"

log = logger(__name__)


def shape_check(session: Session) -> Check:
    """What to do when it is an older one; a newer one has all that this version asks for."""

    async def wrong() -> str | None:
        try:
            rows = await session.fetch(LIVE, timeout=2)
        except (Unavailable, OutcomeUnknown, psycopg.Error) as error:
            log.warning("not ready", part="shape", reason=str(error))
            return "does not say what shape it has"
        shape = rows[0]["shape"] if rows else 0
        if shape < SHAPE:
            return f"the read model has shape {shape}, this version needs {SHAPE}: run `muster rebuild users`"
        return None

    return wrong
