"""Ids that follow a command through its event, the Kafka record and the projector's log lines."""

import re
from contextvars import ContextVar
from dataclasses import dataclass

from runtime.ids import new_id

PRINTABLE = re.compile(r"[\x21-\x7e]{1,128}")
# W3C Trace Context, version 00
TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """request_id is this request's own; correlation_id is shared by all that one cause set off."""

    request_id: str
    correlation_id: str
    causation_id: str
    traceparent: str | None


current: ContextVar[Correlation | None] = ContextVar("correlation", default=None)


def read_correlation(headers: list[tuple[bytes, bytes]]) -> Correlation:
    """Take the caller's ids where they are printable ASCII of at most 128 characters; make the missing ones."""
    sent: dict[bytes, str] = {}
    for name, value in headers:
        if name in {b"x-request-id", b"x-correlation-id", b"x-causation-id", b"traceparent"}:
            sent[name] = value.decode("latin-1")

    def printable(name: bytes) -> str | None:
        value = sent.get(name, "")
        return value if PRINTABLE.fullmatch(value) else None

    request_id = printable(b"x-request-id") or str(new_id())
    traceparent = sent.get(b"traceparent", "")
    return Correlation(
        request_id=request_id,
        correlation_id=printable(b"x-correlation-id") or request_id,
        causation_id=printable(b"x-causation-id") or request_id,
        traceparent=traceparent if TRACEPARENT.fullmatch(traceparent) else None,
    )
