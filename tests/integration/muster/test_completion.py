"""What a shell asks `muster` for when somebody presses the tab key."""

import pytest

from tests.integration.muster.conftest import Muster


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("muster re", {"rebuild", "relay", "replay", "reset"}), ("muster parked re", {"retry"})],
)
async def test_the_shell_completes_commands(muster: Muster, typed: str, expected: set[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    told = await muster(_MUSTER_COMPLETE="complete_bash", **words)
    assert set(told.stdout.split()) == expected
