import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from muster.failures import CannotRun


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningStack:
    """What run.json tells scripts about a stack that is up; database_url is the owner's.

    `token` is its administrator's, None when nobody could be logged in.
    """

    command_url: str
    query_url: str
    projector_url: str
    token: str | None
    admin_email: str
    admin_password_file: str
    database_url: str
    kafka_bootstrap_servers: str
    pids: Mapping[str, int]

    def write(self, file: Path) -> None:
        """Replace run.json at once, so that no reader sees half of it."""
        aside = file.with_name(f"{file.name}.unfinished")
        aside.touch(mode=0o600)
        aside.write_text(json.dumps(asdict(self), indent=2) + "\n")
        aside.replace(file)


def recorded_stack(file: Path) -> RunningStack | None:
    """Read run.json as it was left, whether or not its stack still runs."""
    try:
        return RunningStack(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (TypeError, ValueError) as error:
        raise CannotRun(f"{file} is not a stack's record: {error}") from None


def running_stack(file: Path) -> RunningStack:
    """Read run.json; raises CannotRun when no stack runs there."""
    stack = recorded_stack(file)
    if stack is None or not _alive(stack.pids["supervisor"]):
        raise CannotRun(f"no stack runs in {file.parent}: start one with `make run`, or name its home in MUSTER_HOME")
    return stack


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
