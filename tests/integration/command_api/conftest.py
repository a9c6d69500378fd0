from collections.abc import Iterator

import pytest
import structlog

from runtime.logs import add_ids


@pytest.fixture
def plain_logs() -> Iterator[None]:
    """Log lines as the processes write them, without structlog's rich tracebacks (which show every local value)."""
    structlog.configure(
        processors=[
            add_ids,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )
    yield
    structlog.reset_defaults()
