"""The contract of the topics: the JSON Schemas that events name, the AsyncAPI document, and a page of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from fastapi import APIRouter, Response
from fastapi import Request as HttpRequest

from events.contract import asyncapi
from events.contract.schemas import ASYNCAPI, published, written
from events.envelope import Origin, schema_file
from identity.caller import for_anyone
from query_api.asyncapi_page import page_of
from runtime.problems import Fault, Problem, described
from runtime.settings import Settings

SCHEMA_TYPE: Final = "application/schema+json"
ASYNCAPI_TYPE: Final = "application/vnd.aai.asyncapi+json;version=3.0.0"
# a version stays as it is, but for its words
AN_HOUR: Final = "public, max-age=3600"
# the page has no script, and nothing from elsewhere
PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

router = APIRouter(tags=["contract"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What is served of it, by name of the file."""

    index: bytes
    files: Mapping[str, tuple[bytes, str]]
    page: bytes

    @classmethod
    def of(cls, settings: Settings) -> "Contract":
        document = asyncapi.document(events_topic=settings.events_topic, snapshot_topic=settings.snapshot_topic)
        schemas = {
            schema_file(name, version): schema
            for name, versions in published().items()
            for version, schema in versions.items()
        }
        base = Origin.of(settings).schemas
        listed = [{"title": schema["title"], "url": f"{base}/{file}"} for file, schema in schemas.items()]
        return cls(
            index=orjson.dumps({"schemas": listed, "asyncapi": f"{base}/{ASYNCAPI}"}),
            files={file: (written(schema), SCHEMA_TYPE) for file, schema in schemas.items()}
            | {ASYNCAPI: (written(document), ASYNCAPI_TYPE)},
            page=page_of(document, schemas).encode(),
        )


def _served(kind: str, schema: dict[str, Any], *statuses: int) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {kind: {"schema": schema}}}, **described(*statuses)}


@router.get(
    "/schemas",
    summary="Every schema that an event ever had",
    response_class=Response,
    responses=_served("application/json", {"type": "object"}),
)
@for_anyone
async def list_schemas(http: HttpRequest) -> Response:
    """With the URLs that events name as `ce_dataschema`, and that of the AsyncAPI document."""
    return Response(_contract(http).index, 200, {"Cache-Control": AN_HOUR}, "application/json")


@router.get(
    "/schemas/{file}",
    summary="A JSON Schema, or the AsyncAPI document",
    response_class=Response,
    responses=_served(SCHEMA_TYPE, {"type": "object"}, 404, 422),
)
@for_anyone
async def read_schema(http: HttpRequest, file: str) -> Response:
    """`UserUpdated.v1.json` is of the events of type `muster.UserUpdated.v1`; `asyncapi.json` is of both topics."""
    found = _contract(http).files.get(file)
    if found is None:
        fault = Fault(detail="GET /schemas lists them", code="no_such_schema", parameter="file")
        raise Problem(404, "no_such_schema", "There is no such schema.", faults=[fault])
    content, kind = found
    return Response(content, 200, {"Cache-Control": AN_HOUR}, kind)


@router.get(
    "/asyncapi",
    summary="The AsyncAPI document for people",
    response_class=Response,
    responses=_served("text/html", {"type": "string"}),
)
@for_anyone
async def read_page(http: HttpRequest) -> Response:
    """A page that needs nothing from elsewhere: topics, headers, and every field of every version."""
    headers = {"Cache-Control": AN_HOUR, "Content-Security-Policy": PAGE_POLICY}
    return Response(_contract(http).page, 200, headers, "text/html; charset=utf-8")


def _contract(http: HttpRequest) -> Contract:
    return http.app.state.contract
