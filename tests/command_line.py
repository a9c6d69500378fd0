"""`muster` as an operator of this test's deployment runs it."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.databases import MakeSettings
from tests.processes import environment_of, inherited

MUSTER = Path(sys.executable).parent / "muster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def result(self) -> Any:  # noqa: ANN401 - a JSON document
        """What a command with --json came to."""
        assert self.stdout, self.stderr
        return json.loads(self.stdout)["result"]


Operate = Callable[..., Told]


@pytest.fixture
def operate(make_settings: MakeSettings, tmp_path: Path) -> Operate:
    """Run a command with the projector's role and the test's broker: operate("parked", "list", KEK=...)."""

    def run(*command: str, **variables: str) -> Told:
        settings = environment_of(make_settings("muster_projector", broker=True))
        done = subprocess.run(
            [str(MUSTER), *command],
            stdin=subprocess.DEVNULL,
            env={**inherited(), **settings, "MUSTER_HOME": str(tmp_path / "nowhere"), **variables},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Told(status=done.returncode, stdout=done.stdout, stderr=done.stderr)

    return run
