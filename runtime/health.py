from collections.abc import Awaitable, Callable, Mapping
from typing import Any, LiteralString

import psycopg
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from runtime.database import Session
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.logs import logger
from runtime.problems import Fault, Problem, described

Check = Callable[[], Awaitable[str | None]]

log = logger(__name__)


class Readiness:
    """The parts that this process needs; each check gives None, or what is wrong with its part."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._notes: dict[str, Callable[[], str]] = {}

    def note(self, part: str, describe: Callable[[], str]) -> None:
        """Show a part's state without making readiness depend on it."""
        self._notes[part] = describe

    def notes(self) -> Mapping[str, str]:
        return {part: describe() for part, describe in self._notes.items()}

    def add(self, part: str, check: Check) -> None:
        self._checks[part] = check

    async def wrongs(self) -> Mapping[str, str | None]:
        return {part: await check() for part, check in self._checks.items()}


def database_check(session: Session, query: LiteralString) -> Check:
    """Whether the database answers a query of this process's role; why not is for the log alone."""

    async def wrong() -> str | None:
        try:
            await session.fetch(query, timeout=2)
        except (Unavailable, OutcomeUnknown, psycopg.Error) as error:
            log.warning("not ready", part="database", reason=str(error))
            return "does not answer"
        return None

    return wrong


def health_routes(readiness: Readiness) -> APIRouter:
    """/livez, /readyz and /metrics, the same on every process."""
    router = APIRouter(tags=["operation"])

    @router.get("/livez", summary="Is the process alive?")
    async def livez() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "alive"}

    @router.get("/readyz", summary="Can it serve?", responses=described(503))
    async def readyz() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        wrongs = await readiness.wrongs()
        parts = {part: wrong or "ready" for part, wrong in wrongs.items()} | dict(readiness.notes())
        faults = [Fault(detail=f"{part}: {wrong}", code=part) for part, wrong in wrongs.items() if wrong]
        if faults:
            raise Problem(
                503,
                "not_ready",
                "Not ready: " + "; ".join(fault.detail for fault in faults),
                faults=faults,
                headers={"Retry-After": "1"},
                members={"parts": parts},
            )
        return {"status": "ready", "parts": parts}

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router
