import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware

from events.archive import Archive
from events.envelope import Origin
from events.keyring import open_keyring
from identity import key_routes
from identity.door import Door
from identity.guard import check_routes
from identity.openapi import name_login
from query_api import (
    contract_routes,
    erasure_routes,
    export_routes,
    feed_routes,
    history_routes,
    projection_metrics,
    projection_routes,
    proof_routes,
)
from query_api.contract_routes import Contract
from query_api.freshness import Freshness
from query_api.listening import Listening
from query_api.listing_now import Lists
from query_api.lookout import Lookout
from query_api.model import Model
from query_api.plain_reads import PlainReads
from query_api.proofs import Proofs
from query_api.routes import router
from query_api.shape import shape_check
from runtime.database import Session
from runtime.health import Readiness, database_check
from runtime.settings import Settings
from runtime.web import web_app

ROUTES = (
    # before the routes of users: `me` is no id
    export_routes.router,
    erasure_routes.router,
    router,
    history_routes.router,
    feed_routes.router,
    proof_routes.router,
    projection_routes.router,
    contract_routes.router,
    key_routes.router,
)


def create_app(settings: Settings) -> FastAPI:
    """The query API: HTTP reads from the read model."""
    url = settings.database_url.get_secret_value()
    timeout = settings.read_timeout
    users = Session(url, application="muster query users", timeout=timeout, reads=True)
    glances = Session(url, application="muster query freshness", timeout=timeout, reads=True)
    looks = Session(url, application="muster query projection", timeout=timeout, reads=True)
    logs = Session(url, application="muster query history", timeout=timeout, reads=True)
    trees = Session(url, application="muster query proofs", timeout=timeout, reads=True)
    # a replica that is given no key reads users as they are now, and nothing of the log
    archive = Archive(logs, open_keyring(settings)) if settings.kek is not None else None
    origin = Origin.of(settings)
    door = Door(settings)
    readiness = Readiness()

    readiness.add("database", database_check(glances, "SELECT 1 FROM read_model.progress LIMIT 1"))
    readiness.add("shape", shape_check(glances))
    readiness.add("identity", door.trust.wrong)

    def stopping() -> bool:
        return app.state.stopping()

    @asynccontextmanager
    async def resources() -> AsyncGenerator[None]:
        model = Model(users, timeout=timeout, queue_limit=settings.write_queue_limit)
        lists = Lists(url, timeout=timeout, queue_limit=settings.write_queue_limit)
        lookout = Lookout(
            glances,
            looks,
            events_topic=settings.events_topic,
            partitions=settings.topic_partitions,
            timeout=timeout,
        )
        app.state.lists, app.state.model, app.state.lookout = lists, model, lookout
        app.state.freshness = Freshness(lookout, max_wait=settings.max_wait)
        listening = None
        if archive is not None:
            listening = Listening(archive, origin=origin, slow_after=settings.listener_timeout, stopping=stopping)
        app.state.listening = listening
        following = asyncio.create_task(projection_metrics.follow(lookout))
        try:
            async with door.open():
                yield
        finally:
            following.cancel()
            await asyncio.wait({following})
            await model.close()
            await lookout.close()
            if listening is not None:
                await listening.close()
            await lists.close()
            for session in (users, glances, looks, logs, trees):
                await session.close()

    app = web_app(
        title="Muster query API",
        description="Reads users from the read model. Send Min-Position to read your own writes through any replica."
        " Reads their history from the log.",
        readiness=readiness,
        resources=resources,
        tags=[
            {"name": "users", "description": "Read and list users"},
            {"name": "history", "description": "Who changed what, when and why: read from the log"},
            {"name": "proofs", "description": "That nobody altered it: checkpoints, proofs and tiles"},
            {"name": "export", "description": "All that is held of a person"},
            {"name": "erasure", "description": "What was done to erase a person"},
            {"name": "contract", "description": "What subscribers of the topics get; GET /asyncapi is a page of it"},
            {"name": "projection", "description": "Where the read model stands"},
            {"name": "identity", "description": "The keys that verify access tokens"},
        ],
        origins=settings.origins,
    )
    # the innermost layer, within the frame of every request
    app.user_middleware.append(Middleware(PlainReads, router=router))
    app.state.door, app.state.archive, app.state.origin = door, archive, origin
    app.state.contract = Contract.of(settings)
    app.state.settings, app.state.logs, app.state.proofs = settings, logs, Proofs(trees)
    for routes in ROUTES:
        app.include_router(routes)
    check_routes(app)
    name_login(app, settings.login_url)
    return app
