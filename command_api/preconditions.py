import re
from typing import Annotated, Final

from fastapi import Header, Request

from events.keyring import Digester
from events.writer import Idempotency
from identity.access_tokens import Caller
from runtime.entity_tags import entity_tags
from runtime.problems import Fault, Problem

VERSION: Final = re.compile(r"[1-9][0-9]{0,9}")
KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
MAX_REASON: Final = 500


async def accepted_versions(
    request: Request,
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description='the version the change is meant for, as the ETag had it: "3"',
            examples=['"3"'],
        ),
    ] = None,
) -> frozenset[int] | None:
    """The versions that If-Match accepts (RFC 9110, section 13.1.1); None accepts any.

    Tags are compared strongly, so a weak one matches no version.
    """
    if if_match is None:
        return None
    try:
        tags = entity_tags(request.headers.getlist("if-match"))
    except ValueError:
        fault = Fault(detail='send "N", a list of them, or *', code="malformed_etag", parameter="If-Match")
        raise Problem(400, "malformed_etag", "If-Match is not a list of entity tags.", faults=[fault]) from None
    if tags is None:
        return None
    return frozenset(int(tag.opaque) for tag in tags if not tag.weak and VERSION.fullmatch(tag.opaque))


async def idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="makes a retry of this request take effect once (kept 24 hours by default)",
            examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
        ),
    ] = None,
) -> str | None:
    """The Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): 1 to 255 printable ASCII characters."""
    if idempotency_key is None or KEY.fullmatch(idempotency_key):
        return idempotency_key
    fault = Fault(
        detail="must have 1 to 255 printable ASCII characters and no spaces",
        code="malformed_idempotency_key",
        parameter="Idempotency-Key",
    )
    raise Problem(400, "malformed_idempotency_key", "The Idempotency-Key cannot be used.", faults=[fault])


async def idempotency_of(http: Request, caller: Caller, key: str | None) -> Idempotency | None:
    """What makes a retry of this request take effect once, if it has a key."""
    if key is None:
        return None
    digester: Digester = http.app.state.digester
    # the body as it was sent: key order and white space are the caller's, and a retry repeats them
    request = b"\0".join((http.method.encode(), http.scope["path"].encode(), await http.body()))
    return Idempotency(
        caller=caller.subject, key=key, digest=digester.request(request), former=digester.former_requests(request)
    )


async def reason(
    reason: Annotated[
        str | None,
        Header(alias="Reason", description="why, in at most 500 characters of UTF-8; kept with the event for ever"),
    ] = None,
) -> str | None:
    """The Reason header. It is kept in the clear, so it must name nobody."""
    if not reason:
        return None
    try:
        # HTTP carries bytes, which ASGI shows as Latin-1
        text = reason.encode("latin-1").decode()
    except UnicodeDecodeError:
        text = ""
    if text.isprintable() and 0 < len(text) <= MAX_REASON:
        return text
    fault = Fault(
        detail=f"must have at most {MAX_REASON} printable characters in UTF-8",
        code="malformed_reason",
        parameter="Reason",
    )
    raise Problem(400, "malformed_reason", "The Reason cannot be kept.", faults=[fault])
