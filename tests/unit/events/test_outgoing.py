"""Records that are made of a row at once, held against those that are made of its event."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, cast
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from command_api.decide import CreateUser, decide
from events.keyring import Kek, Keyring
from events.outgoing import Encoder, Outgoing
from events.recording import TOMBSTONE, event_of, row_of
from events.sealing import associated_data, seal, unseal
from events.user import UserEvent, UserId
from tests.people import ADA, ADA_CREATED, ADA_ID, METADATA, NOON, ORIGIN, change, create, delete
from tests.random_histories import COMMANDS, VALUES, history
from tests.tokens import KEK

KEYRING = Keyring(Kek(KEK))
ENCODER = Encoder(KEYRING, ORIGIN)
CREATIONS = st.builds(create, attributes=st.dictionaries(st.text(max_size=3), VALUES, max_size=3))


def as_jsonb(value: Any) -> Any:  # noqa: ANN401 - JSON
    """As Postgres gives it back: keys by length, then by their bytes."""
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        return {name: as_jsonb(found[name]) for name in sorted(found, key=lambda name: (len(name), name.encode()))}
    return value


def stored(event: UserEvent) -> dict[str, Any]:
    """A row of the log, as it is read back."""
    row = row_of(event, METADATA, KEYRING, None)
    return {
        **row,
        "data": as_jsonb(row["data"]),
        "metadata": as_jsonb(row["metadata"]),
        "position": 7,
        "user_id": ADA_ID,
        "version": event.user.version,
        "event_id": UUID(row["event_id"]),
        "sealed": bytes.fromhex(row["sealed"][2:]),
        "recorded_at": NOON,
        "wrapped": bytes.fromhex(row["wrapped"][2:]),
    }


def bound_to(row: dict[str, Any]) -> bytes:
    return associated_data(
        user_id=row["user_id"],
        version=row["version"],
        type_name=row["type"],
        schema=row["schema"],
        event_id=row["event_id"],
    )


def opened(row: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    return unseal(KEYRING.open(row["user_id"], row["wrapped"]), row["sealed"], bound_to(row))


def places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - JSON
    """Each member of an object, and of those in it."""
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        for name in found:
            yield (*path, name)
            yield from places(found[name], (*path, name))


def whole(row: dict[str, Any]) -> Outgoing | None:
    """The whole way, None where it does not lead to records."""
    try:
        return Outgoing.of(event_of(row, KEYRING), ORIGIN)
    except Exception:  # noqa: BLE001 - whatever it says of a damaged row
        return None


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(CREATIONS, COMMANDS, st.booleans())
def test_the_records_of_any_history_are_those_of_its_events(first: CreateUser, rest: Any, deleted: bool) -> None:  # noqa: ANN401, FBT001 - hypothesis gives them by place
    for event in history(first, rest, deleted=deleted):
        row = stored(event)
        made = ENCODER.outgoing(row)
        assert made is not None
        assert made == whole(row)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_row_that_was_altered_becomes_what_its_event_becomes_or_goes_the_whole_way(data: st.DataObject) -> None:
    event = data.draw(st.sampled_from([ADA_CREATED, changed(), deleted()]))
    row = stored(event)
    document = deepcopy({"data": row["data"], "metadata": row["metadata"], "personal": opened(row)})
    held: Any = document
    *path, name = data.draw(st.sampled_from(sorted(path for path in places(document) if len(path) > 1)))
    for step in path:
        held = held[step]
    match data.draw(st.sampled_from(["drop", "replace", "respell", "add"])):
        case "drop":
            del held[name]
        case "respell":
            held[name] = data.draw(st.sampled_from(spellings(held[name])))
        case "add":
            held[data.draw(st.sampled_from(["own", "erased", "status", "created_at", "other"]))] = data.draw(VALUES)
        case _:
            held[name] = data.draw(VALUES)
    row |= {"data": document["data"], "metadata": document["metadata"]}
    row["sealed"] = seal(KEYRING.open(row["user_id"], row["wrapped"]), document["personal"], bound_to(row))
    made = ENCODER.outgoing(row)
    assert made is None or made == whole(row)


def spellings(value: Any) -> list[Any]:  # noqa: ANN401 - JSON
    """Values that are nearly the same."""
    if isinstance(value, str):
        return [value.upper(), value.replace("T", " "), value.replace("Z", "+00:00"), value[:-3] + "Z", [value]]
    return [str(value), [value], float(value) if isinstance(value, int) else {}]


@pytest.mark.parametrize(
    "altered",
    [
        {"wrapped": TOMBSTONE},
        {"wrapped": None},
        {"schema": 2},
        {"type": "UserMoved"},
        {"sealed": b"\x01" + bytes(40)},
        {"user_id": UserId(UUID(int=5))},
        {"version": 3},
    ],
    ids=str,
)
def test_what_is_not_plainly_readable_goes_the_whole_way(altered: dict[str, Any]) -> None:
    assert ENCODER.outgoing(stored(ADA_CREATED) | altered) is None


def test_the_order_of_what_changed_is_that_of_the_event() -> None:
    made = ENCODER.outgoing(stored(changed()))
    assert made is not None
    assert made.history.value is not None
    changes = orjson.loads(made.history.value)["changes"]
    assert [list(one) for one in changes.values()] == [["old", "new"]] * len(changes)


def changed() -> UserEvent:
    event = decide(ADA, change({"team": "looms"}, email="other@example.com", roles=("user",)))
    assert event is not None
    return event


def deleted() -> UserEvent:
    event = decide(ADA, delete())
    assert event is not None
    return event
