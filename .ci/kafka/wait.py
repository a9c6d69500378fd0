# noqa: INP001 - a script, run by path
"""Wait until the broker at the given address answers, as long as the process KAFKA_PID lives."""

import os
import sys

from muster.embedded.broker import wait_for_metadata
from muster.failures import CannotRun


def fail_if_ended() -> None:
    """Raise CannotRun when the broker's process is gone."""
    try:
        os.kill(int(os.environ["KAFKA_PID"]), 0)
    except ProcessLookupError:
        raise CannotRun("the broker's process has ended") from None


try:
    # the first start fetches the artifacts
    wait_for_metadata(sys.argv[1], timeout=300, meanwhile=fail_if_ended)
except CannotRun as error:
    sys.exit(f"Apache Kafka: {error}")
