"""Who logged in, was refused, or lost access: one structured line each, with ids alone.

No secret, no e-mail address, no name, no network address; whatever the values, a line is one JSON object (CR and LF
arrive escaped).
"""

from prometheus_client import Counter

from runtime.logs import logger

EVENTS = Counter("muster_security_events_total", "Lines of the security log", ["event"])

log = logger("security")


def record(event: str, **ids: str | int | None) -> None:
    """Write one line; `event` is a fixed name, what is None is left out."""
    EVENTS.labels(event).inc()
    log.warning(event, security=True, **{name: value for name, value in ids.items() if value is not None})
