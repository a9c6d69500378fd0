from pathlib import Path

import pytest

from tests.databases import MakeSettings
from tests.histories import History
from tests.processes import environment_of, inherited


@pytest.fixture
def surroundings(make_settings: MakeSettings, tmp_path: Path) -> dict[str, str]:
    """The environment of an operator who has the projector's settings."""
    settings = environment_of(make_settings("muster_projector"))
    return {**inherited(), **settings, "MUSTER_HOME": str(tmp_path / "nowhere")}


@pytest.fixture
def peopled(history: History) -> History:
    """120 users in 200 events: some changed, some deleted; the live table has them all."""
    history.create(range(120))
    history.change(range(0, 120, 2), display_name="Renamed")
    history.delete(range(0, 120, 6))
    history.project()
    assert history.head == 200
    return history
