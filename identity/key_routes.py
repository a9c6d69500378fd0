from typing import Final

import orjson
from fastapi import APIRouter, Request, Response

from identity.app_state import door_of
from identity.caller import for_anyone
from identity.signing_keys import jwk_of

# what the other services that verify our tokens may go on with after a key was published or revoked
JWKS_MAX_AGE: Final = 60

router = APIRouter(tags=["identity"])


@router.get("/.well-known/jwks.json", summary="The keys that verify access tokens (RFC 7517)")
@for_anyone
async def jwks(request: Request) -> Response:
    """During a rotation there are two: the next one is published before it signs."""
    trust = door_of(request).trust
    if not trust.fresh:
        await trust.look()
    keys = [jwk_of(kid, public) for kid, public in trust.keys.items()]
    headers = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE}"}
    return Response(orjson.dumps({"keys": keys}), 200, headers, "application/json")
