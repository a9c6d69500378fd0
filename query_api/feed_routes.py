"""All events in the order of the log, as CloudEvents: in pages, or as they come (Server-Sent Events)."""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode
from uuid import UUID

import orjson
from fastapi import APIRouter, Header, Query, Response
from fastapi import Request as HttpRequest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from events.archive import Archive, Wanted
from events.envelope import Origin
from events.recording import Position
from events.wire import TYPES
from identity.access_tokens import Caller
from identity.caller import needs
from identity.roles import Scope
from query_api.cloud_events import EXAMPLE, cloud_event_of
from query_api.listening import Listening
from query_api.listing import Searched
from query_api.moments import LARGEST, archive_of, position_at
from runtime.problems import Fault, Problem, described

BATCH_TYPE: Final = "application/cloudevents-batch+json"
STREAM_TYPE: Final = "text/event-stream"
MAX_EVENTS: Final = 1_000
# the smallest step of recorded_at
STEP: Final = timedelta(microseconds=1)

router = APIRouter(tags=["history"])


class FeedQuery(BaseModel):
    """Which events, from where on."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[int, Field(ge=0, le=LARGEST)] | Literal["head"] = Field(
        0, description="the position that you have; `head`: only what is still to come"
    )
    limit: int = Field(100, ge=1, le=MAX_EVENTS, description="of a page")
    types: str | None = Field(
        None, max_length=200, description="with commas: UserCreated,UserUpdated,UserDeleted", examples=["UserDeleted"]
    )
    user: UUID | None = None
    actor: Annotated[Searched, Field(max_length=200)] | None = Field(None, description="the subject of who did it")
    correlation: Annotated[Searched, Field(max_length=200)] | None = None
    since: AwareDatetime | None = Field(None, description="recorded then or later (RFC 3339, with an offset)")
    until: AwareDatetime | None = Field(None, description="recorded then or earlier")

    def wanted(self) -> Wanted:
        """Raises a 422 problem for a type that there is not."""
        types = None if self.types is None else [name.strip() for name in self.types.split(",")]
        for name in types or ():
            if name not in TYPES:
                fault = Fault(detail=f"one of {', '.join(TYPES)}", code="no_such_type", parameter="types")
                raise Problem(422, "no_such_type", f"There is no event type {name!r}.", faults=[fault])
        return Wanted(types=types, actor=self.actor, correlation=self.correlation, user_id=self.user)

    def next_page(self, through: Position) -> str:
        sent = self.model_dump(mode="json", exclude_none=True, exclude={"after"})
        return urlencode({**sent, "after": through})


FEED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "CloudEvents 1.0: a batch, or a stream when the request accepts that alone",
        "content": {
            BATCH_TYPE: {"schema": {"type": "array", "items": {"type": "object"}}, "example": [EXAMPLE]},
            STREAM_TYPE: {"schema": {"type": "string"}},
        },
        "headers": {
            "Event-Position": {
                "description": "of a page: it has all that is wanted up to here; go on with it as `after`",
                "schema": {"type": "integer"},
            },
            "Link": {"description": 'when the log goes on: <...>; rel="next"', "schema": {"type": "string"}},
        },
    },
    **described(401, 403, 422, 503),
}


@router.get("/events", summary="All events, in order", response_class=Response, responses=FEED)
async def read_events(
    http: HttpRequest,
    caller: Annotated[Caller, needs(Scope.EVENTS_READ)],
    query: Annotated[FeedQuery, Query()],
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="of a stream: the last id that arrived, instead of after")
    ] = None,
) -> Response:
    """With the envelope, ids and order of the Kafka topic.

    A page looks at up to 10,000 positions: with rare filters it may be empty and still have a next one.

    `Accept: text/event-stream` gives Server-Sent Events instead: `id` is the position, so that a client that reconnects
    with Last-Event-ID loses nothing and gets nothing twice. It ends when the token does.
    """
    archive = archive_of(http)
    wanted = query.wanted()
    streamed = _prefers_stream(accept)
    after = await _start(archive, query, last_event_id if streamed else None)
    until = await _until(archive, query)
    if streamed:
        listening: Listening = http.app.state.listening
        return await listening.stream(http, caller, wanted, after=after, until=until)
    feed = await archive.feed(wanted, after=after, until=until, limit=query.limit)
    headers = {"Event-Position": str(feed.through), "Cache-Control": "no-cache"}
    if feed.through < (feed.head if until is None else min(until, feed.head)):
        headers["Link"] = f'</events?{query.next_page(feed.through)}>; rel="next"'
    origin: Origin = http.app.state.origin
    body = [cloud_event_of(entry, origin) for entry in feed.entries]
    return Response(orjson.dumps(body), 200, headers, BATCH_TYPE)


def _prefers_stream(accept: str | None) -> bool:
    return accept is not None and STREAM_TYPE in accept.lower() and "json" not in accept.lower()


async def _start(archive: Archive, query: FeedQuery, last_event_id: str | None) -> Position:
    if last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdigit() and int(last_event_id[:20]) <= LARGEST):
            fault = Fault(detail="is no id of this stream", code="bad_event_id", parameter="Last-Event-ID")
            raise Problem(422, "bad_event_id", "Last-Event-ID is a position of the log.", faults=[fault])
        after = Position(int(last_event_id[:20]))
    else:
        after = await archive.head() if query.after == "head" else Position(query.after)
    if query.since is not None:
        try:
            before = query.since - STEP
        except OverflowError:
            # the first moment that there is: nothing was before it
            return after
        after = max(after, await position_at(archive, before, "since"))
    return after


async def _until(archive: Archive, query: FeedQuery) -> Position | None:
    return None if query.until is None else await position_at(archive, query.until, "until")
