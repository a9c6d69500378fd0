import random
from collections.abc import Iterator
from typing import Final

SHORTEST: Final = 0.2
LONGEST: Final = 15.0


def delays() -> Iterator[float]:
    """Seconds to wait between attempts: longer each time, up to a bound, and never the same for all."""
    delay = SHORTEST
    while True:
        yield delay * random.uniform(0.7, 1.3)  # noqa: S311 - not a secret
        delay = min(delay * 2, LONGEST)
