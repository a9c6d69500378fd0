"""Proof that the history is what it was: checkpoints, proofs and tiles. All but the entries are for anyone."""

import base64
from typing import Annotated, Any, Final, NoReturn

import orjson
from fastapi import APIRouter, Path, Query, Response
from fastapi import Request as HttpRequest

from events.proofs.tiles import Bundle, Tile, parse_path, tile_width
from events.recording import Position
from identity.access_tokens import Caller
from identity.caller import for_anyone, needs
from identity.roles import Scope
from query_api.moments import LARGEST
from query_api.proofs import Proofs, Signed
from runtime.problems import Fault, Problem, described

TEXT: Final = "text/plain; charset=utf-8"
BINARY: Final = "application/octet-stream"
# what never changes: a full tile, and a partial one of a width
FOR_EVER: Final = "public, max-age=31536000, immutable"
NEWEST: Final = "no-cache"
# the next checkpoint is that near
SOON: Final = "1"

router = APIRouter(tags=["proofs"])

Size = Annotated[int | None, Query(ge=1, le=LARGEST, description="of the tree; the newest checkpoint's if left out")]
NOTE: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
PROVED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"schema": {"type": "object"}}}},
    **described(404, 422, 503),
}
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}},
    **described(404, 503),
}


@router.get(
    "/proofs/key",
    summary="The key that verifies checkpoints",
    response_class=Response,
    responses={200: {"content": NOTE}, **described(404, 503)},
)
@for_anyone
async def read_key(http: HttpRequest) -> Response:
    """As a verifier key (C2SP signed-note): keep it, so that nobody can give you another with another history."""
    tree = await _proofs(http).tree()
    if tree is None:
        raise _nothing_yet()
    return Response(f"{tree.verifier}\n", 200, {"Cache-Control": NEWEST}, TEXT)


@router.get(
    "/proofs/checkpoint",
    summary="The newest checkpoint",
    response_class=Response,
    responses={
        200: {"content": NOTE, "headers": {"Event-Position": {"schema": {"type": "integer"}}}},
        **described(404, 503),
    },
)
@for_anyone
async def read_checkpoint(http: HttpRequest) -> Response:
    """A signed note (C2SP tlog-checkpoint): what the log's tree is, up to the position that is its size."""
    signed = await _signed(http)
    headers = {"Event-Position": str(signed.size), "Cache-Control": NEWEST}
    return Response(signed.note, 200, headers, TEXT)


@router.get(
    "/proofs/inclusion/{position}",
    summary="Proof that an event is in the log",
    response_class=Response,
    responses=PROVED,
)
@for_anyone
async def read_inclusion(
    http: HttpRequest, position: Annotated[int, Path(ge=1, le=LARGEST)], size: Size = None
) -> Response:
    """The path from the leaf of the position to the root (RFC 9162, section 2.1.3); hashes are in base64.

    The leaf is what /proofs/tile/entries has of the position, the leaf's number position - 1.
    """
    signed = await _signed(http)
    size = _size(signed, size, "size")
    if position > size:
        _beyond("position", position, size, soon=size == signed.size)
    found = await _proofs(http).inclusion(Position(position), size)
    body = {
        "position": position,
        "leaf_index": position - 1,
        "leaf_hash": _base64(found.leaf_hash),
        "size": size,
        "root": _base64(found.root),
        "proof": [_base64(each) for each in found.path],
        "checkpoint": signed.note,
    }
    return _json(body)


@router.get(
    "/proofs/consistency",
    summary="Proof that the log only grew",
    response_class=Response,
    responses=PROVED,
)
@for_anyone
async def read_consistency(
    http: HttpRequest,
    first: Annotated[int, Query(alias="from", ge=0, le=LARGEST, description="a size that you know the root of")],
    second: Annotated[
        int | None, Query(alias="to", ge=0, le=LARGEST, description="the newest checkpoint's if left out")
    ] = None,
) -> Response:
    """That the tree of one size only adds to that of another (RFC 9162, section 2.1.4); hashes are in base64."""
    signed = await _signed(http)
    second = _size(signed, second, "to")
    if first > second:
        _beyond("from", first, second, soon=second == signed.size)
    found = await _proofs(http).consistency(first, second)
    body = {
        "from": first,
        "from_root": _base64(found.first_root),
        "to": second,
        "to_root": _base64(found.second_root),
        "proof": [_base64(each) for each in found.proof],
        "checkpoint": signed.note,
    }
    return _json(body)


@router.get(
    "/proofs/tile/entries/{path:path}",
    summary="The leaves of a tile",
    response_class=Response,
    responses={**BYTES, **described(401, 403)},
)
async def read_entries(http: HttpRequest, path: str, _: Annotated[Caller, needs(Scope.EVENTS_READ)]) -> Response:
    """As C2SP tlog-tiles has it: each event as it is stored, behind its length. What is personal in it is sealed."""
    bundle = parse_path(f"tile/entries/{path}")
    if not isinstance(bundle, Bundle) or not _is_there(bundle.width, 0, bundle.index, await _signed(http)):
        raise _no_tile()
    return Response(await _proofs(http).entries(bundle), 200, {"Cache-Control": "private, no-cache"}, BINARY)


@router.get(
    "/proofs/tile/{path:path}",
    summary="A tile of the tree",
    response_class=Response,
    responses=BYTES,
)
@for_anyone
async def read_tile(http: HttpRequest, path: str) -> Response:
    """As C2SP tlog-tiles has it: up to 256 hashes, of which no event can be told."""
    tile = parse_path(f"tile/{path}")
    if not isinstance(tile, Tile) or not _is_there(tile.width, tile.level, tile.index, await _signed(http)):
        raise _no_tile()
    return Response(await _proofs(http).tile(tile), 200, {"Cache-Control": FOR_EVER}, BINARY)


def _proofs(http: HttpRequest) -> Proofs:
    proofs: Proofs = http.app.state.proofs
    return proofs


async def _signed(http: HttpRequest) -> Signed:
    signed = await _proofs(http).signed()
    if signed is None:
        raise _nothing_yet()
    return signed


def _size(signed: Signed, asked: int | None, parameter: str) -> int:
    if asked is None:
        return signed.size
    if asked > signed.size:
        _beyond(parameter, asked, signed.size, soon=True)
    return asked


def _is_there(width: int, level: int, index: int, signed: Signed) -> bool:
    return width <= tile_width(level, index, signed.size)


def _beyond(parameter: str, asked: int, size: int, *, soon: bool) -> NoReturn:
    fault = Fault(detail=f"is larger than {size}", code="not_signed", parameter=parameter)
    headers = {"Retry-After": SOON} if soon else {}
    detail = f"No checkpoint covers {asked} yet: the newest is of {size} events." if soon else f"{asked} is not in it."
    raise Problem(404, "not_signed", detail, faults=[fault], headers=headers)


def _nothing_yet() -> Problem:
    detail = "Nothing was signed yet: the first checkpoint comes with the first event."
    return Problem(404, "not_signed", detail, headers={"Retry-After": SOON})


def _no_tile() -> Problem:
    return Problem(404, "no_such_tile", "The tree has no such tile, or not of that width.")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), 200, {"Cache-Control": NEWEST}, "application/json")
