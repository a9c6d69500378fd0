from collections.abc import Iterator

import pytest

from muster_subscriber.sqlite import SqliteUsers


@pytest.fixture
def table() -> Iterator[SqliteUsers]:
    """The application of these tests."""
    users = SqliteUsers(":memory:")
    yield users
    users.close()
