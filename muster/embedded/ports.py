import random
import socket
from collections.abc import Collection

# below the range that Linux takes outgoing connections' ports from: none of those can come in between
CANDIDATES = range(15_000, 32_000)


def free_port(host: str = "127.0.0.1", *, taken: Collection[int] = ()) -> int:
    """Pick a port that nobody listens on and that is none of `taken`."""
    for port in random.sample(CANDIDATES, k=200):
        if port not in taken and refusal(host, port) is None:
            return port
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


def refusal(host: str, port: int) -> OSError | None:
    """Say why one cannot listen there, or None when one can."""
    try:
        # create_server sets SO_REUSEADDR: connections that have just ended there are no obstacle
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        return error
    return None
