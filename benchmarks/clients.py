"""Runs a script in a process of its own: it reads what is asked as JSON from stdin and answers the same way."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def run_script(script: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    finished = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(asked),
        # the terminal's Ctrl-C is this process's to handle, which then kills the child
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise RuntimeError(f"{script.name} failed:\n{finished.stderr[-4000:]}")
    return json.loads(finished.stdout)
