import pytest

from muster_subscriber.testing import MusterUsers


@pytest.fixture
def muster_users() -> MusterUsers:
    """Users that the test changes, and their topics."""
    return MusterUsers()
