import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from muster.embedded.postgres import NOBODY
from muster.embedded.program import tether
from muster.failures import CannotRun

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="cannot in CI: only root can run a child as another user")


@needs_root
def test_roots_child_runs_as_another_user_who_reaches_what_lies_in_roots_own_folders(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "file").write_text("")
    code = "import os, sys; print(os.getuid(), os.access(sys.argv[1], os.R_OK))"
    told = subprocess.run(
        [*tether(signal.SIGTERM, user=NOBODY), sys.executable, "-c", code, closed / "file"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == [str(NOBODY), "True"]
    assert closed.stat().st_mode & 0o777 == 0o700


def test_without_setpriv_a_child_is_merely_not_tethered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tether(signal.SIGTERM) == []
    with pytest.raises(CannotRun, match="install util-linux"):
        tether(signal.SIGTERM, user=NOBODY)
