"""Follow the users of Muster: bootstrap, then every change, each applied once."""

from muster_subscriber.application import Application
from muster_subscriber.bookmarks import Bookmark, Moved
from muster_subscriber.contract import Batch, Change, Event, FieldChange, Kind, Poison, User
from muster_subscriber.follower import Counts, Lost, MissingEvents, Poisoned
from muster_subscriber.subscription import Subscription, subscribe

__all__ = [
    "Application",
    "Batch",
    "Bookmark",
    "Change",
    "Counts",
    "Event",
    "FieldChange",
    "Kind",
    "Lost",
    "MissingEvents",
    "Moved",
    "Poison",
    "Poisoned",
    "Subscription",
    "User",
    "subscribe",
]
