import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from command_api.handler import CommandHandler
from command_api.refusals import answer_refusals
from command_api.routes import router
from events.keyring import open_digester, open_keyring
from events.reader import Reader
from events.relay import Relay
from events.writer import Writer
from identity.caller import Gatekeeper
from identity.passwords import Passwords
from runtime.database import Session
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.health import Readiness, database_check
from runtime.logs import logger
from runtime.pacing import end_within
from runtime.settings import Settings
from runtime.web import web_app

PURGE_EVERY = 300.0
# a broker that is away must not keep the process from stopping
STOP_WITHIN = 8.0
PURGE = """
DELETE FROM log.commands WHERE (caller, key) IN (
    SELECT caller, key FROM log.commands WHERE expires_at < now() ORDER BY expires_at LIMIT 10000
)
"""

log = logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The command API: HTTP writes, and the relay beside them. Raises BadKeyFile."""
    keyring, digester = open_keyring(settings), open_digester(settings)
    url = settings.database_url.get_secret_value()
    timeout = settings.write_timeout
    writing = Session(url, application="muster command writer", timeout=timeout)
    reading = Session(url, application="muster command reader", timeout=timeout, reads=True)
    background = Session(url, application="muster command background", timeout=timeout)
    relay = Relay(settings, keyring)
    readiness = Readiness()

    readiness.add("database", database_check(background, "SELECT position FROM log.head"))
    if settings.relay:
        # the log takes writes whatever the broker does: the relay's trouble is told, not a reason to send none
        readiness.note("relay", lambda: relay.state if relay.problem is None else f"{relay.state}: {relay.problem}")

    async def purge_expired() -> None:
        while True:
            try:
                await background.fetch(PURGE)
            except (Unavailable, OutcomeUnknown) as error:
                log.warning("expired idempotency keys were not purged", reason=str(error))
            await asyncio.sleep(PURGE_EVERY)

    @asynccontextmanager
    async def resources() -> AsyncGenerator[None]:
        reader = Reader(reading, keyring, timeout=timeout, queue_limit=settings.write_queue_limit)
        writer = Writer(
            writing,
            keyring,
            timeout=timeout,
            queue_limit=settings.write_queue_limit,
            idempotency_ttl=settings.idempotency_ttl,
        )
        app.state.handler = CommandHandler(
            reader=reader,
            writer=writer,
            passwords=app.state.passwords,
            digester=digester,
            committed=relay.wake,
            timeout=timeout,
            limit=settings.write_queue_limit,
        )
        purging = asyncio.create_task(purge_expired())
        relaying = asyncio.create_task(relay.run()) if settings.relay else None
        try:
            yield
        finally:
            await writer.close()
            relay.stop()
            if relaying is not None:
                await end_within(relaying, STOP_WITHIN)
            purging.cancel()
            await asyncio.wait({purging})
            await reader.close()
            for session in (writing, reading, background):
                await session.close()
            app.state.passwords.close()

    app = web_app(
        title="Muster command API",
        description="Writes users. Every accepted write is one durable event; reads belong to the query API.",
        readiness=readiness,
        resources=resources,
        tags=[{"name": "users", "description": "Create, update and delete users"}],
    )
    app.state.gatekeeper = Gatekeeper(settings)
    app.state.digester = digester
    app.state.passwords = Passwords(settings)
    answer_refusals(app)
    app.include_router(router)
    return app
