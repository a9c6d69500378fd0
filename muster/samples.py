"""Records like those of the topics, about people who do not exist: for trying a subscriber's handler.

Whatever is known of a person follows from their id, and what changes from their version: the same sample again is the
same but for ids and times of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from typing import Any, Final, Literal, TypeVar, assert_never, get_args

from command_api.decide import ChangeUser, CreateUser, DeleteUser, decide
from events.envelope import Envelope, Origin, history_envelope, snapshot_envelope
from events.recording import Actor, Metadata, Position, RecordedEvent
from events.user import EventId, Status, User, UserEvent, UserId
from events.wire import NAMES, erased_event
from muster.population import FAMILY, GIVEN, SITES, TEAMS
from runtime.ids import new_id

T = TypeVar("T")
SampleType = Literal["user.created", "user.updated", "user.deleted", "user.erased", "user.snapshot", "user.tombstone"]
TYPES: Final[Sequence[SampleType]] = get_args(SampleType)

SOURCE: Final = "/muster/samples"
# a record's header, which no real one has
HEADER: Final = ("sample", b"true")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A record to send, and the user as it leaves them."""

    user: User
    envelope: Envelope


def sample(
    kind: SampleType, user_id: UserId, before: User | None, *, position: Position, at: datetime, origin: Origin
) -> Sample:
    """What comes next for this user: whoever is to be changed and is not known was created just before.

    Raises UserExists and UserGone of command_api.decide.
    """
    match kind:
        case "user.created":
            event = _created(user_id, before, at)
        case "user.updated":
            event = _updated(before or _created(user_id, None, at).user, at)
        case "user.snapshot":
            event = _created(user_id, None, at) if before is None else _updated(before, at)
        case "user.deleted" | "user.tombstone":
            event = _deleted(before or _created(user_id, None, at).user, at)
        case "user.erased":
            # as a deletion is published once the key of the user's personal data is destroyed
            event = erased_event(_deleted(before or _created(user_id, None, at).user, at))
        case _:
            assert_never(kind)
    envelope = _envelope(kind, _recorded(event, position, at), origin)
    return Sample(user=event.user, envelope=replace(envelope, headers=[*envelope.headers, HEADER]))


def _envelope(kind: SampleType, recorded: RecordedEvent, origin: Origin) -> Envelope:
    """The only place that makes them: exactly as the relay does."""
    encode = snapshot_envelope if kind in {"user.snapshot", "user.tombstone"} else history_envelope
    return encode(recorded, origin)


def _recorded(event: UserEvent, position: Position, at: datetime) -> RecordedEvent:
    request = str(new_id())
    metadata = Metadata(
        actor=Actor(subject="muster trigger", kind="operator"),
        request_id=request,
        correlation_id=request,
        causation_id=request,
    )
    return RecordedEvent(
        position=position, recorded_at=at, event=event, metadata=metadata, type_name=NAMES[type(event)]
    )


def _created(user_id: UserId, before: User | None, at: datetime) -> UserEvent:
    random = Random(str(user_id))  # noqa: S311 - made to be foreseen
    given, family = random.choice(GIVEN), random.choice(FAMILY)
    # as other alphabets' names are written in addresses is not the point here
    local = f"sample.{user_id.hex[-12:]}"
    command = CreateUser(
        event_id=EventId(new_id()),
        user_id=user_id,
        at=at,
        email=f"{local}@example.com",
        display_name=f"{given} {family}",
        status=Status.ACTIVE,
        roles=("user",),
        attributes={"team": random.choice(TEAMS), "site": random.choice(SITES)},
        with_password=True,
    )
    return _happened(decide(before, command))


def _updated(before: User, at: datetime) -> UserEvent:
    random = Random(f"{before.id}/{before.version}")  # noqa: S311 - likewise
    attributes = {**before.attributes, "site": _another(random, SITES, before.attributes.get("site"))}
    given = (before.display_name or random.choice(GIVEN)).split(" ")[0]
    changes: Sequence[dict[str, Any]] = (
        {"attributes": attributes},
        {"display_name": _another(random, [f"{given} {family}" for family in FAMILY], before.display_name)},
        {"roles": ("user",) if len(before.roles) > 1 else ("editor", "user")},
        {"status": Status.DISABLED if before.status is Status.ACTIVE else Status.ACTIVE},
    )
    new = changes[(before.version - 1) % len(changes)]
    command = ChangeUser(
        event_id=EventId(new_id()), at=at, new=new, attributes_patch=None, with_password=False, versions=None
    )
    return _happened(decide(before, command))


def _deleted(before: User, at: datetime) -> UserEvent:
    return _happened(decide(before, DeleteUser(event_id=EventId(new_id()), at=at, versions=None)))


def _happened(event: UserEvent | None) -> UserEvent:
    if event is None:
        raise ValueError("a sample that changes nothing")
    return event


def _another(random: Random, choices: Sequence[T], than: object) -> T:
    return random.choice([choice for choice in choices if choice != than])
