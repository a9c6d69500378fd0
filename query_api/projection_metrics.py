"""The projection as Prometheus sees it. What could not be checked is NaN, never the last good value."""

import asyncio
from math import nan
from typing import Final

from prometheus_client import Gauge

from query_api.lookout import Lookout
from query_api.projection import STATES, Projection, projection_of
from runtime.failures import Unavailable
from runtime.logs import logger

EVERY: Final = 2.0
# of standing.Parked
PLACES: Final = ("projector", "relay", "records")

UP = Gauge("muster_projection_up", "1 when the last check went well; while it is 0, what it tells is NaN")
CHECKED = Gauge("muster_projection_checked_timestamp_seconds", "When it was checked, by the database's clock")
HEAD = Gauge("muster_projection_head_position", "The last position of the log")
PUBLISHED = Gauge("muster_projection_published_position", "Published up to here, by partition", ["partition"])
APPLIED = Gauge("muster_projection_applied_position", "In the read model up to here, by partition", ["partition"])
LAG_EVENTS = Gauge("muster_projection_lag_events", "Events that the read model lacks, at most")
LAG_SECONDS = Gauge("muster_projection_lag_seconds", "Age of the oldest event that the read model lacks")
RATE = Gauge("muster_projection_rate", "Events applied a second, by all projectors")
PARKED = Gauge("muster_projection_parked", "Users held back, and records set aside", ["where"])
STATE = Gauge("muster_projection_state", "1 for the state that it is in", ["state"])
MOVED = Gauge("muster_projection_last_moved_timestamp_seconds", "When a partition last moved")

log = logger(__name__)


async def follow(lookout: Lookout) -> None:
    """Keep the gauges fresh until cancelled."""
    known: Projection | None = None
    failing = False
    while True:
        try:
            known = projection_of(await lookout.look())
            show(known)
            failing = False
        except Unavailable as error:
            show_unknown(known)
            if not failing:
                log.warning("the projection cannot be checked", reason=str(error))
            failing = True
        except Exception:  # whatever it was: how the projection is, is not known, and the next look may go well
            show_unknown(known)
            if not failing:
                log.exception("the projection is not checked")
            failing = True
        await asyncio.sleep(EVERY)


def show(projection: Projection) -> None:
    HEAD.set(projection.head)
    LAG_EVENTS.set(projection.lag_events)
    LAG_SECONDS.set(projection.lag_seconds)
    RATE.set(projection.rate)
    MOVED.set(nan if projection.moved_at is None else projection.moved_at.timestamp())
    PUBLISHED.clear()
    APPLIED.clear()
    for one in projection.partitions:
        PUBLISHED.labels(one.partition).set(one.published)
        APPLIED.labels(one.partition).set(one.reached)
    for where in PLACES:
        PARKED.labels(where).set(getattr(projection.parked, where))
    for state in STATES:
        STATE.labels(state).set(state == projection.kind)
    CHECKED.set(projection.checked_at.timestamp())
    UP.set(1)


def show_unknown(known: Projection | None) -> None:
    """`known` is what was shown last."""
    for gauge in (HEAD, LAG_EVENTS, LAG_SECONDS, RATE, MOVED, CHECKED):
        gauge.set(nan)
    for one in known.partitions if known is not None else ():
        PUBLISHED.labels(one.partition).set(nan)
        APPLIED.labels(one.partition).set(nan)
    for where in PLACES:
        PARKED.labels(where).set(nan)
    for state in STATES:
        STATE.labels(state).set(nan)
    UP.set(0)
