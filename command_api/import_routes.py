import tempfile
from collections.abc import AsyncIterator
from typing import IO, Annotated, Final

from fastapi import APIRouter, Depends, Query, Response
from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from command_api.importing import LONGEST_KEY, Importer, Line, lines_of
from command_api.preconditions import idempotency_key, reason
from events.recording import Metadata
from identity.access_tokens import Caller
from identity.caller import GATE, needs
from identity.roles import Scope
from runtime.correlation import current
from runtime.logs import logger
from runtime.problems import Fault, Problem, described

NDJSON: Final = "application/x-ndjson"
ACCEPTED: Final = frozenset({NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonlines"})
# results beyond that are on disk until they are sent
IN_MEMORY: Final = 1 << 20
PIECE: Final = 1 << 16
# how many lines are begun between two looks at whether the caller may still write
LOOK_EVERY: Final = 256
EXAMPLE: Final = (
    '{"line":1,"status":201,"id":"0192d3c8-5b0e-7c31-9d5e-0a3f6f6f2b11","version":1,"position":4711}\n'
    '{"line":2,"status":422,"errors":[{"detail":"too common","code":"password_too_common","pointer":"#/password"}]}\n'
)

router = APIRouter(tags=["import"])
log = logger(__name__)


def _media_type(http: HttpRequest) -> None:
    if http.headers.get("content-type", "").partition(";")[0].strip().lower() not in ACCEPTED:
        detail = f"Send a line of JSON for each user: Content-Type: {NDJSON}"
        raise Problem(415, "not_ndjson", detail, headers={"Accept": NDJSON})


@router.post(
    "/users/import",
    summary="Create many users",
    response_class=Response,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {NDJSON: {"schema": {"type": "string"}, "example": '{"email": "ada@example.com"}\n'}},
        }
    },
    responses={
        200: {
            "description": "What became of each line, in order",
            "content": {NDJSON: {"schema": {"type": "string"}, "example": EXAMPLE}},
            "headers": {
                "Lines-Accepted": {"schema": {"type": "integer"}},
                "Lines-Refused": {"schema": {"type": "integer"}},
            },
        },
        **described(400, 401, 403, 415, 422, 503),
    },
)
async def import_users(
    http: HttpRequest,
    caller: Annotated[Caller, needs(Scope.USERS_WRITE)],
    key: Annotated[str | None, Depends(idempotency_key)],
    why: Annotated[str | None, Depends(reason)],
    *,
    check: Annotated[bool, Query(description="only say what would be refused; nothing is written")] = False,
) -> Response:
    """Each line is what POST /users takes, by the same rules, and becomes the same event.

    A line that is refused stops no other. The body may have any length, a line 64 KiB.

    The answer comes once all lines are done. If it does not come, or is a 503, send the same file with the same
    Idempotency-Key: lines that were done are told again (200) and the others are done.
    """
    _media_type(http)
    if key is not None and len(key) > LONGEST_KEY:
        fault = Fault(
            detail=f"must have at most {LONGEST_KEY} characters",
            code="malformed_idempotency_key",
            parameter="Idempotency-Key",
        )
        raise Problem(400, "malformed_idempotency_key", "The Idempotency-Key cannot be used.", faults=[fault])
    correlation = current.get()
    if correlation is None:
        raise LookupError("no correlation: the request frame is missing")
    metadata = Metadata.of(correlation, caller.actor, why)
    importer = Importer(
        None if check else http.app.state.handler,
        http.app.state.passwords,
        http.app.state.digester,
        caller=caller.subject,
        authority=caller.scopes,
        metadata=metadata,
        key=key,
    )
    # A client reads the answer once it has sent everything: what is told meanwhile waits in a file.
    results = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed once the answer is sent
    try:
        counts = await _carry_out(http, caller, importer, results)
    except ClientDisconnect:
        results.close()
        log.info("the caller left in the midst of a file")
        return Response(status_code=400)
    except BaseException:
        results.close()
        raise
    headers = {"Lines-Accepted": str(counts[True]), "Lines-Refused": str(counts[False])}
    return StreamingResponse(_pieces(results), headers=headers, media_type=NDJSON)


async def _carry_out(http: HttpRequest, caller: Caller, importer: Importer, told: IO[bytes]) -> dict[bool, int]:
    counts = {True: 0, False: 0}
    async for result in importer.results(_admitted(http, caller, lines_of(http.stream()))):
        told.write(result.to_json())
        counts[not result.faults] += 1
    return counts


async def _admitted(http: HttpRequest, caller: Caller, lines: AsyncIterator[Line]) -> AsyncIterator[Line]:
    """The lines as long as the caller may write: of whoever was logged out meanwhile, no more is begun."""
    begun = 0
    async for line in lines:
        begun += 1
        if begun % LOOK_EVERY == 0:
            await GATE.still(http, caller)
        yield line


async def _pieces(told: IO[bytes]) -> AsyncIterator[bytes]:
    with told:
        told.seek(0)
        while piece := told.read(PIECE):
            yield piece


# paths whose bodies are read as they arrive, however long they are
STREAMED: Final[frozenset[str]] = frozenset({"/users/import"})
