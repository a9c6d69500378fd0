import logging
import sys
from contextlib import redirect_stdout

from runtime.logs import configure_logging


def log_to_stderr() -> None:
    """Write the security log's lines to stderr: a command's stdout is its answer."""
    # what it writes to is what stdout is when it is called
    with redirect_stdout(sys.stderr):
        configure_logging("muster", "warning")
    # a command says in one line what is wrong with a broker
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
