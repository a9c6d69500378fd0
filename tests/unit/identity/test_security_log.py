import io
from collections.abc import Iterator

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from identity.security_log import record


@pytest.fixture
def written() -> Iterator[io.BytesIO]:
    written = io.BytesIO()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(written),
    )
    yield written
    structlog.reset_defaults()


def lines(written: io.BytesIO) -> list[object]:
    return [orjson.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_has_its_ids_and_says_what_it_is(written: io.BytesIO) -> None:
    record("login.succeeded", subject="0192", session="0193", tries=3)
    assert lines(written) == [
        {
            "event": "login.succeeded",
            "level": "warning",
            "module": "security",
            "security": True,
            "subject": "0192",
            "session": "0193",
            "tries": 3,
        }
    ]


def test_what_is_not_known_is_left_out(written: io.BytesIO) -> None:
    record("login.refused", subject=None, account="ab12", tries=0)
    [line] = lines(written)
    assert isinstance(line, dict)
    assert "subject" not in line
    assert (line["account"], line["tries"]) == ("ab12", 0)


@given(value=st.text())
def test_a_line_is_one_line_whatever_is_in_it(value: str) -> None:
    written = io.BytesIO()
    structlog.configure(
        processors=[structlog.processors.JSONRenderer(serializer=orjson.dumps)],
        logger_factory=structlog.BytesLoggerFactory(written),
    )
    try:
        record("login.refused", subject=value)
    finally:
        structlog.reset_defaults()
    [line] = written.getvalue().split(b"\n")[:-1]
    assert orjson.loads(line)["subject"] == value
    assert not any(byte < 0x20 for byte in line)


@pytest.mark.usefixtures("written")
def test_lines_are_counted_by_their_event() -> None:
    def count(event: str) -> float:
        return REGISTRY.get_sample_value("muster_security_events_total", {"event": event}) or 0

    before = count("login.throttled"), count("session.ended")
    for _ in range(3):
        record("login.throttled", account="ab12")
    assert (count("login.throttled") - before[0], count("session.ended") - before[1]) == (3, 0)
