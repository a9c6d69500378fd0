"""The versions of each event type, and how an event of an older one is read as one of the newest.

A version is a wire form: what the log stores and the topics carry. It is fixed once it was published (events/schemas
has each), and each must be readable by whoever knows another: an event gains optional fields and loses none. What an
older event says otherwise, its upcaster puts as the newest has it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from events.user import CHANGEABLE, User
from events.wire import TYPES

# {"user": the record, "changes": by name what changed, and the event's own fields}, as JSON has them. Where the record
# alone is wanted, `changes` is empty and the event's own fields are not there. Of an erased user what is personal is
# empty or null.
Document = dict[str, Any]
# from one version to the next; it gives a new document, and the same for the same
Upcaster = Callable[[Document], Document]

RECORD: Final = frozenset(field.name for field in fields(User))

# by type: the first makes version 2 of version 1, and so on
UPCASTERS: Final[Mapping[str, Sequence[Upcaster]]] = dict.fromkeys(TYPES, ())


def newest(type_name: str) -> int:
    """The version that is written now. Raises KeyError for a type that is not known."""
    return len(UPCASTERS[type_name]) + 1


def as_newest(type_name: str, version: int, document: Document) -> Document:
    """Read an event of any version. Raises KeyError for a type that is not known.

    One of a later version than this code knows (another process was upgraded first) is read as the newest that it
    does: such an event lacks nothing, and what it has beyond is passed over.
    """
    upcasters = UPCASTERS[type_name]
    if version > len(upcasters) + 1:
        user = {name: value for name, value in document["user"].items() if name in RECORD}
        changes = {name: change for name, change in document["changes"].items() if name in CHANGEABLE}
        return {**document, "user": user, "changes": changes}
    for upcast in upcasters[version - 1 :]:
        document = upcast(document)
    return document
