"""Cursors of pages: opaque to callers, and good for the list that gave them alone."""

import base64
from typing import Any

import orjson

from runtime.problems import Fault, Problem


def cursor_of(place: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(place)).rstrip(b"=").decode()


def place_in(cursor: str) -> Any:  # noqa: ANN401 - a JSON document
    """Raises ValueError for what no page gave."""
    text = cursor.encode("ascii")
    return orjson.loads(base64.b64decode(text + b"=" * (-len(text) % 4), b"-_", validate=True))


def bad_cursor(detail: str, *, what: str = "list") -> Problem:
    fault = Fault(detail=detail, code="bad_cursor", parameter="cursor")
    return Problem(422, "bad_cursor", f"Start the {what} again without a cursor.", faults=[fault])
