from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Response
from fastapi import Request as HttpRequest
from pydantic import BaseModel, ConfigDict, Field

from identity.access_tokens import Caller
from identity.caller import needs
from identity.roles import Scope
from query_api.lookout import Lookout
from query_api.projection import projection_of
from runtime.problems import described

router = APIRouter(tags=["projection"])

EXAMPLE: Final[dict[str, Any]] = {
    "state": "catching-up",
    "why": "4210 events and 2.3 s behind",
    "head": 912_004,
    "published": 911_950,
    "applied": 907_794,
    "lag_events": 4210,
    "lag_seconds": 2.311,
    "rate": 11_240.5,
    "moved_at": "2026-11-22T19:54:08.026314Z",
    "checked_at": "2026-11-22T19:54:08.031907Z",
    "partitions": [
        {
            "partition": 0,
            "published": 911_950,
            "applied": 907_794,
            "reached": 907_794,
            "lag_events": 4210,
            "lag_seconds": 2.311,
            "moved_at": "2026-11-22T19:54:08.026314Z",
            "projector": "projector-0",
        }
    ],
    "projectors": [
        {
            "instance": "projector-0",
            "state": "live",
            "problem": None,
            "partitions": [0],
            "rate": 11_240.5,
            "seen": 0.412,
            "moved_at": "2026-11-22T19:54:08.026314Z",
        }
    ],
    "parked": {"projector": 0, "relay": 0, "users": 0, "records": 0},
    "rebuild": None,
}


class PartitionBody(BaseModel):
    partition: int
    published: int = Field(description="every event up to here that belongs to the partition is in the topic")
    applied: int = Field(description="the position of the last event that was applied")
    reached: int = Field(description="no event of the partition up to here is missing in the read model")
    lag_events: int = Field(description="events of the log after `reached`: the partition lacks at most so many")
    lag_seconds: float = Field(description="age of the oldest event that it lacks; 0: none is missing")
    moved_at: datetime | None
    projector: str | None = Field(description="the instance that has the partition now")


class ProjectorBody(BaseModel):
    instance: str
    state: str = Field(description="as the projector itself says")
    problem: str | None
    partitions: list[int]
    rate: float = Field(description="events applied a second, over the last ten")
    seen: float = Field(description="seconds since it last gave a sign; after 5 it does not count as running")
    moved_at: datetime | None


class ParkedBody(BaseModel):
    projector: int = Field(description="users of whom an event cannot be applied: they stay as before it")
    relay: int = Field(description="users of whom an event cannot be published")
    users: int = Field(description="users held back by either")
    records: int = Field(description="records of the topic that were set aside and hold nobody back")


class RebuildBody(BaseModel):
    running: bool = Field(description="false: it was left unfinished, by --dry-run or by its end")
    phase: str
    shape: int
    started_at: datetime


class ProjectionBody(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    state: str = Field(
        pattern=r"^(live|catching-up|stalled|rebuilding|parked [1-9][0-9]*)$",
        description="live | catching-up | stalled | rebuilding | parked N",
    )
    why: str | None = Field(description="what the state comes from; null: it is live")
    head: int = Field(description="the last position of the log")
    published: int = Field(description="the lowest of all partitions")
    applied: int = Field(description="the lowest `reached` of all partitions: what every list has")
    lag_events: int = Field(description="the read model lacks at most so many")
    lag_seconds: float = Field(description="age of the oldest event that it lacks; 0: none is missing")
    rate: float = Field(description="events applied a second, by all projectors that run")
    moved_at: datetime | None = Field(description="when a partition last moved")
    checked_at: datetime = Field(description="as all times here: by the database's clock")
    partitions: list[PartitionBody]
    projectors: list[ProjectorBody]
    parked: ParkedBody
    rebuild: RebuildBody | None = Field(description="a table beside the live one")


@router.get(
    "/projection",
    summary="Where the read model stands",
    response_model=ProjectionBody,
    responses=described(401, 403, 503),
)
async def read_projection(http: HttpRequest, _: Annotated[Caller, needs(Scope.OPS)]) -> Response:
    """Read from the database for this answer; 503 when that cannot be done, which says nothing about the projection."""
    lookout: Lookout = http.app.state.lookout
    projection = projection_of(await lookout.look())
    return Response(projection.to_json(), 200, {"Cache-Control": "no-store"}, "application/json")
