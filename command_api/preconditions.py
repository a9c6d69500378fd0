import re
from typing import Annotated

from fastapi import Header, Request

from runtime.problems import Fault, Problem

ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
KEY = re.compile(r"[\x21-\x7e]{1,255}")


def accepted_versions(
    request: Request,
    if_match: Annotated[
        str | None,
        Header(description='the version the change is meant for, as the ETag had it: "3"', examples=['"3"']),
    ] = None,
) -> frozenset[int] | None:
    """The versions that If-Match accepts (RFC 9110, section 13.1.1); None accepts any.

    Tags are compared strongly, so a weak one matches no version.
    """
    if if_match is None:
        return None
    tags = [tag.strip() for line in request.headers.getlist("if-match") for tag in line.split(",")]
    if tags == ["*"]:
        return None
    versions: set[int] = set()
    for tag in tags:
        found = ENTITY_TAG.fullmatch(tag)
        if found is None:
            fault = Fault(detail='send "N", a list of them, or *', code="malformed_etag", parameter="If-Match")
            raise Problem(400, "malformed_etag", "If-Match is not a list of entity tags.", faults=[fault])
        weak, text = found.groups()
        if not weak and text.isascii() and text.isdigit():
            versions.add(int(text))
    return frozenset(versions)


def idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(description="makes a retry of this request take effect once (kept 24 hours by default)"),
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


def reason(
    reason: Annotated[str | None, Header(max_length=500, description="why; kept with the event")] = None,
) -> str | None:
    return reason or None
