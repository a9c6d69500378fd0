import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from events.keyring import open_keyring
from projector.lanes import LANES
from projector.model_store import ModelStore
from projector.pending_lists import PendingLists
from projector.projector import Projector
from projector.pulse import Pulse
from runtime.database import Session
from runtime.health import Readiness
from runtime.pacing import end_within
from runtime.settings import Settings
from runtime.web import web_app

STATEMENT_TIMEOUT = 60.0
PULSE_TIMEOUT = 5.0
# a broker that is away must not keep the process from stopping
STOP_WITHIN = 10.0


def create_app(settings: Settings) -> FastAPI:
    """One projector, with health and metrics over HTTP beside it. Raises BadKey."""
    url = settings.database_url.get_secret_value()
    writing = [Session(url, application="muster projector", timeout=STATEMENT_TIMEOUT) for _ in range(LANES)]
    reading = Session(url, application="muster projector log", timeout=STATEMENT_TIMEOUT, reads=True)
    merging = Session(url, application="muster projector merging", timeout=STATEMENT_TIMEOUT)
    store = ModelStore(
        writing,
        reading,
        open_keyring(settings),
        events_topic=settings.events_topic,
        partitions=settings.topic_partitions,
        parked_limit=settings.parked_limit,
    )
    pending_lists = PendingLists(merging)
    projector = Projector(settings, store, pending_lists)
    beats = Session(url, application="muster projector pulse", timeout=PULSE_TIMEOUT)
    pulse = Pulse(settings, beats, projector)
    readiness = Readiness()

    async def projector_wrong() -> str | None:
        if projector.state in {"live", "catching-up"}:
            return None
        return projector.state if projector.problem is None else f"{projector.state}: {projector.problem}"

    readiness.add("projector", projector_wrong)

    @asynccontextmanager
    async def resources() -> AsyncGenerator[None]:
        projecting = asyncio.create_task(projector.run())
        beating = asyncio.create_task(pulse.run())
        tidying = asyncio.create_task(pending_lists.run())
        try:
            yield
        finally:
            projector.stop()
            await end_within(projecting, STOP_WITHIN)
            await end_within(beating, 0)
            await end_within(tidying, 0)
            await pulse.end()
            await beats.close()
            await merging.close()
            await reading.close()
            for session in writing:
                await session.close()

    return web_app(
        title="Muster projector",
        description="Carries the events topic into the read model. Health and metrics only.",
        readiness=readiness,
        resources=resources,
        tags=[],
    )
