from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from runtime.direct import DirectRoutes
from runtime.health import Readiness, health_routes
from runtime.problems import ProblemBody, answer_with_problems, described
from runtime.requests import RequestFrame

EXPOSED = (
    "As-Of-Position",
    "ETag",
    "Event-Position",
    "Idempotency-Replayed",
    "Lines-Accepted",
    "Lines-Refused",
    "Link",
    "Location",
    "Parked-Users",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Unreadable-Users",
    "WWW-Authenticate",
    "X-Request-Id",
)
QUIET = frozenset({"/livez", "/readyz", "/metrics"})


def web_app(
    *,
    title: str,
    description: str,
    readiness: Readiness,
    resources: Callable[[], AbstractAsyncContextManager[None]],
    tags: list[dict[str, Any]],
    origins: frozenset[str] = frozenset(),
    streamed: frozenset[str] = frozenset(),
) -> FastAPI:
    """An app with what every process wears: problems, ids, limits, health, metrics and offline /docs.

    `resources` is entered before the first request and left after the last one is answered. Pages of `origins` may
    call it from a browser, with tokens and never with cookies. Bodies to the paths `streamed` may have any length.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with resources():
            yield

    app = FastAPIOffline(
        title=title,
        description=description,
        version="0.1.0",
        lifespan=lifespan,
        # a redirect would be made of whatever Host header the caller sent
        redirect_slashes=False,
        # the frame counts, times and logs each request; looking for a tracer that nobody installed takes longer
        telemetry={"tracing": False, "metrics": False, "logs": False},
        openapi_tags=[*tags, {"name": "operation", "description": "Health and metrics"}],
        swagger_ui_parameters={"persistAuthorization": True, "tryItOutEnabled": True},
    )
    # whoever serves the app says when it is to stop: long answers end then
    app.state.stopping = lambda: False
    answer_with_problems(app)
    # what is added first is innermost
    app.add_middleware(DirectRoutes)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
            max_age=600,
        )
    app.add_middleware(RequestFrame, quiet=QUIET, streamed=streamed)
    app.include_router(health_routes(readiness))

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs"))
            schemas["ProblemBody"] = problem
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"]["500"] = described(500)[500]
                    # the framework's own validation answer is never sent: ours is a problem
                    answer = operation.get("responses", {}).get("422", {})
                    if "HTTPValidationError" in str(answer):
                        answer["content"] = {
                            "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}
                        }
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi
    return app
