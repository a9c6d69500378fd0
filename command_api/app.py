import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager

from fastapi import FastAPI

from command_api import erase_routes, import_routes
from command_api.erasing import Eraser
from command_api.first_admin import FirstAdmin
from command_api.handling import open_handler
from command_api.import_routes import STREAMED
from command_api.purging import purge_expired
from command_api.refusals import answer_refusals
from command_api.routes import router
from events.keyring import open_digester, open_keyring
from events.leadership import Leader
from events.proofs.integrator import Integrator
from events.relay import Relay
from identity import key_routes, login_routes, session_routes
from identity.door import Door
from identity.guard import check_routes
from identity.logins import Logins
from identity.openapi import name_login
from identity.passwords import Passwords
from identity.sessions import Sessions
from runtime.database import Session
from runtime.health import Readiness, database_check
from runtime.pacing import end_within
from runtime.settings import Settings
from runtime.web import web_app

# a broker that is away must not keep the process from stopping
STOP_WITHIN = 8.0


def create_app(settings: Settings) -> FastAPI:
    """The command API: HTTP writes, and the relay beside them. Raises BadSettings."""
    keyring, digester = open_keyring(settings), open_digester(settings)
    url = settings.database_url.get_secret_value()
    background = Session(url, application="muster command background", timeout=settings.write_timeout)
    identity = Session(url, application="muster command identity", timeout=settings.write_timeout)
    erasing = Session(url, application="muster command erasing", timeout=settings.write_timeout)
    door = Door(settings, kek=keyring.kek, digester=digester)
    passwords = Passwords(settings)
    first_admin = FirstAdmin(settings, passwords)
    relay, integrator = Relay(settings, keyring), Integrator(settings, keyring)
    readiness = Readiness()

    readiness.add("database", database_check(background, "SELECT position FROM log.head"))
    readiness.add("identity", door.trust.wrong)
    if settings.first_admin_email is not None:
        readiness.add("first admin", first_admin.wrong)
    if settings.relay:
        # the log takes writes whatever the broker does: the relay's trouble is told, not a reason to send none
        readiness.note("relay", lambda: _standing(relay))
        readiness.note("integrator", lambda: _told(integrator.state, integrator.problem))

    def committed() -> None:
        relay.wake()
        integrator.wake()

    @asynccontextmanager
    async def resources() -> AsyncGenerator[None]:
        try:
            async with (
                _running(relay, wanted=settings.relay),
                _running(integrator, wanted=settings.relay),
                open_handler(
                    settings, keyring=keyring, digester=digester, passwords=passwords, committed=committed
                ) as handler,
                _meanwhile(purge_expired(background)),
                _meanwhile(first_admin.settle(handler, background)),
                door.open(),
            ):
                eraser = Eraser(
                    erasing, handler, settings=settings, keyring=keyring, digester=digester, erased=relay.wake
                )
                app.state.handler, app.state.eraser = handler, eraser
                async with _meanwhile(eraser.run()):
                    yield
        finally:
            await background.close()
            await identity.close()
            await erasing.close()
            passwords.close()

    app = web_app(
        title="Muster command API",
        description="Writes users. Every accepted write is one durable event; reads belong to the query API.",
        readiness=readiness,
        resources=resources,
        tags=[
            {"name": "users", "description": "Create, update and delete users"},
            {"name": "import", "description": "Create many users from a file"},
            {"name": "erasure", "description": "Erase a person for good"},
            {"name": "identity", "description": "Log in and out"},
        ],
        origins=settings.origins,
        streamed=STREAMED,
    )
    app.state.settings = settings
    app.state.door = door
    app.state.digester = digester
    app.state.passwords = passwords
    app.state.logins = Logins(settings, Sessions(identity, settings), passwords, digester)
    answer_refusals(app)
    app.include_router(import_routes.router)
    app.include_router(router)
    app.include_router(erase_routes.router)
    app.include_router(login_routes.router)
    app.include_router(session_routes.router)
    app.include_router(key_routes.router)
    check_routes(app)
    name_login(app, settings.login_url)
    return app


@asynccontextmanager
async def _running(leader: Leader, *, wanted: bool) -> AsyncGenerator[None]:
    running = asyncio.create_task(leader.run()) if wanted else None
    try:
        yield
    finally:
        leader.stop()
        if running is not None:
            await end_within(running, STOP_WITHIN)


@asynccontextmanager
async def _meanwhile(work: Coroutine[None, None, None]) -> AsyncGenerator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _standing(relay: Relay) -> str:
    parked = f", {len(relay.parked)} users parked" if len(relay.parked) else ""
    return _told(relay.state, relay.problem) + parked


def _told(state: str, problem: str | None) -> str:
    return state if problem is None else f"{state}: {problem}"
