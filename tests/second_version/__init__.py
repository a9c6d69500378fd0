"""A second version of UserUpdated, as a developer would add it; `sitecustomize` puts it into whole processes.

- It has a field of its own, `channel`: where the change came from. Of the first version that is not known.
- `attributes.phone` is written without spaces. The first version took it as it was typed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, cast

from typing_extensions import TypedDict

from events import user, versions, wire
from events.contract import bodies
from events.user import UserUpdated

NAME = "UserUpdated"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondUserUpdated(UserUpdated):
    channel: str = "api"


class Body(TypedDict):
    """A user was changed."""

    user: bodies.User
    changes: bodies.Changes
    channel: NotRequired[str]


def upcast(document: versions.Document) -> versions.Document:
    """Version 2 of version 1."""
    record, changes = document["user"], document["changes"]
    told = {"user": {**record, "attributes": _spaceless(record["attributes"])}, "channel": "unknown"}
    if "attributes" in changes and not changes["attributes"].get("erased"):
        change = changes["attributes"]
        changes = {**changes, "attributes": {side: _spaceless(change[side]) for side in ("old", "new")}}
    return {**document, **told, "changes": changes}


def _spaceless(attributes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if attributes is None or not isinstance(phone := attributes.get("phone"), str):
        return attributes
    return {**attributes, "phone": phone.replace(" ", "")}


def install() -> None:
    """Before anything else of this process has looked at the types."""
    user.UserUpdated = SecondUserUpdated  # pyright: ignore[reportAttributeAccessIssue] - what a later version would have
    cast("dict[str, Any]", wire.TYPES)[NAME] = SecondUserUpdated
    cast("dict[Any, str]", wire.NAMES)[SecondUserUpdated] = NAME
    cast("dict[str, Any]", versions.UPCASTERS)[NAME] = (upcast,)
    cast("dict[str, Any]", bodies.BODIES)[NAME] = Body
