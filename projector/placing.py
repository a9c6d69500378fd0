"""Where a partition goes on: whether its stored offset still means what it meant, and what of a poll follows it."""

from collections.abc import Sequence
from typing import Final

from events.envelope import place_in
from events.recording import Position
from events.topics import Record, Span
from projector.model_store import Progress, Published

FAR_BEHIND: Final = 20_000
NEVER: Final = -1


class Gap(Exception):
    """The topic does not go on where the model stands: the log has what is between; the message says why."""


def can_go_on(stands: Progress, *, span: Span, head: Position, published: Published | None) -> bool:
    """Whether the topic, which holds `span`, can be read on from the stored offset; else the log is read first."""
    if stands.next_offset == NEVER or not span.start <= stands.next_offset <= span.end:
        return False
    if published is not None and published.epoch != stands.epoch:
        # an offset of the topic that was there before
        return False
    return head - stands.position <= FAR_BEHIND or stands.next_offset == span.end


def following(records: Sequence[Record], stands: Progress) -> Sequence[Record]:
    """Those of a poll that are not applied yet. Raises Gap."""
    # getmany may still give records from before a seek
    fresh = [record for record in records if record.offset >= stands.next_offset]
    before = records[-len(fresh) - 1] if len(fresh) < len(records) else None
    place = place_in(before.headers) if before is not None else None
    if place is not None and place[0] > stands.position:
        raise Gap("topic_made_anew")
    if fresh and fresh[0].offset != stands.next_offset:
        # retention overtook us between two polls
        raise Gap("lost_offset")
    return fresh
