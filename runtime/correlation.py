"""Ids that follow a command through its event, the Kafka record and the projector's log lines."""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from runtime.ids import new_text_id

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


def read_correlation(headers: Mapping[bytes, bytes]) -> Correlation:
    """Take the caller's ids where they are printable ASCII of at most 128 characters; make the missing ones."""
    request_id = _sent(headers, b"x-request-id", PRINTABLE) or new_text_id()
    return Correlation(
        request_id=request_id,
        correlation_id=_sent(headers, b"x-correlation-id", PRINTABLE) or request_id,
        causation_id=_sent(headers, b"x-causation-id", PRINTABLE) or request_id,
        traceparent=_sent(headers, b"traceparent", TRACEPARENT),
    )


def _sent(headers: Mapping[bytes, bytes], name: bytes, form: re.Pattern[str]) -> str | None:
    if (value := headers.get(name)) is None:
        return None
    text = value.decode("latin-1")
    return text if form.fullmatch(text) else None
