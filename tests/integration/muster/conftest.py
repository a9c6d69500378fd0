import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
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
    def records(self) -> list[dict[str, Any]]:
        """The lines of the security log."""
        return [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]

    @property
    def result(self) -> Any:  # noqa: ANN401 - a JSON document
        """What a command with --json came to."""
        assert self.stdout, self.stderr
        return json.loads(self.stdout)["result"]

    @property
    def refusal(self) -> tuple[int, str]:
        """Of a command that answered nothing."""
        assert self.stdout == ""
        assert "Traceback" not in self.stderr
        return self.status, self.stderr.strip()


Muster = Callable[..., Awaitable[Told]]


@pytest.fixture
def surroundings(make_settings: MakeSettings, tmp_path: Path) -> dict[str, str]:
    """The environment of an operator of this test's deployment."""
    return {**inherited(), **environment_of(make_settings()), "MUSTER_HOME": str(tmp_path / "nowhere")}


@pytest.fixture
def muster(surroundings: dict[str, str]) -> Muster:
    """Run a command as an operator does: muster("keys", "list"). A variable that is None is unset."""

    async def run(*command: str, stdin: str = "", **variables: str | None) -> Told:
        environment = {name: value for name, value in (surroundings | variables).items() if value is not None}
        done = await asyncio.to_thread(
            subprocess.run,
            [str(MUSTER), *command],
            input=stdin,
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Told(status=done.returncode, stdout=done.stdout, stderr=done.stderr)

    return run
