"""Random commands against a plain model in memory: record, list, history, as-of and diff agree with it after each."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from command_api.app import create_app as create_command_app
from projector.rows import row_of
from query_api.app import create_app as create_query_app
from tests.apps import Caller, calling
from tests.databases import MakeSettings

Record = dict[str, Any]

EMAILS = itertools.count(1)
RUNS = itertools.count(1)
NAMES = st.none() | st.sampled_from(["Ada", "Grace Hopper", "Zoë", "林"])
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["team", "floor", "Ä"]), st.none() | st.booleans() | st.integers(0, 9), max_size=2
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "display_name": NAMES,
        "attributes": ATTRIBUTES,
        "status": st.sampled_from(["active", "disabled"]),
        "email": st.sampled_from(["one@example.com", "two@example.com"]),
    },
)


@dataclass(slots=True)
class Past:
    """What a user was after each event: the record, None once deleted; and the position of each event."""

    records: list[Record | None] = field(default_factory=list[Record | None])
    positions: list[int] = field(default_factory=list[int])

    def at(self, position: int) -> Record | None:
        before = [record for record, found in zip(self.records, self.positions, strict=True) if found <= position]
        return before[-1] if before else None


class Apis:
    """Both APIs over one database, whose read model is told of every record."""

    def __init__(self, commands: Caller, queries: Caller, owner: psycopg.Connection[Record]) -> None:
        self.commands = commands
        self.queries = queries
        self.owner = owner

    def command(self, method: str, path: str, body: Record | None = None) -> httpx.Response:
        return self.commands.call(method, path, json=body)

    def query(self, path: str, **parameters: object) -> httpx.Response:
        return self.queries.call("GET", path, params=parameters)

    def project(self, record: Record, position: int, *, deleted_at: str | None = None) -> None:
        rows = orjson.dumps([row_of({**record, "deleted_at": deleted_at}, position)]).decode()
        self.owner.execute("SELECT read_model.put('read_model.users', %s, NULL)", (rows,))


@pytest.fixture
def apis(make_settings: MakeSettings, owner: psycopg.Connection[Record]) -> Iterator[Apis]:
    with (
        calling(create_command_app(make_settings("muster_command"))) as commands,
        calling(create_query_app(make_settings("muster_query"))) as queries,
    ):
        yield Apis(commands, queries, owner)


class HistoryMachine(RuleBasedStateMachine):
    """`apis` is set by the test that runs it."""

    apis: Apis
    living = Bundle("living")

    def __init__(self) -> None:
        super().__init__()
        # each run has the list to itself: by a role of its own
        self.role = f"run-{next(RUNS)}"
        self.pasts: dict[str, Past] = {}

    @rule(target=living, name=NAMES, attributes=ATTRIBUTES)
    def create(self, name: str | None, attributes: Record) -> str:
        body = {"email": f"user{next(EMAILS)}@example.com", "display_name": name, "attributes": attributes}
        answer = self.apis.command("POST", "/users", {**body, "roles": [self.role]})
        assert answer.status_code == 201, answer.text
        user_id = answer.json()["id"]
        self.pasts[user_id] = Past()
        self.remember(user_id, answer)
        return user_id

    @rule(user_id=living, new=CHANGES, method=st.sampled_from(["PUT", "PATCH"]))
    def change(self, user_id: str, new: Record, method: str) -> None:
        if "email" in new:
            new = {**new, "email": f"{self.role}-{new['email']}"}
        answer = self.apis.command(method, f"/users/{user_id}", new)
        if answer.status_code == 409:
            return
        assert answer.status_code == 200, answer.text
        if answer.json()["changed"]:
            self.remember(user_id, answer)

    @rule(user_id=consumes(living))
    def delete(self, user_id: str) -> None:
        answer = self.apis.command("DELETE", f"/users/{user_id}")
        assert answer.status_code == 200, answer.text
        past = self.pasts[user_id]
        before = past.records[-1]
        assert before is not None
        past.records.append(None)
        past.positions.append(int(answer.headers["event-position"]))
        told = answer.json()
        record = {**before, "version": told["version"], "updated_at": told["deleted_at"]}
        self.apis.project(record, past.positions[-1], deleted_at=told["deleted_at"])

    def remember(self, user_id: str, answer: httpx.Response) -> None:
        record = {name: value for name, value in answer.json().items() if name != "changed"}
        past = self.pasts[user_id]
        past.records.append(record)
        past.positions.append(int(answer.headers["event-position"]))
        self.apis.project(record, past.positions[-1])

    @invariant()
    def users_agree(self) -> None:
        for user_id, past in self.pasts.items():
            path = f"/users/{user_id}"
            self.agrees(self.apis.query(path), past.records[-1])
            for version, (record, position) in enumerate(zip(past.records, past.positions, strict=True), 1):
                self.agrees(self.apis.query(path, version=version), record)
                self.agrees(self.apis.query(path, at_position=position), record)
            assert self.apis.query(path, at_position=past.positions[0] - 1).status_code == 404
            events = self.apis.query(f"{path}/history", limit=200).json()["events"]
            assert [event["position"] for event in events] == past.positions
            for event, (before, after) in zip(events, itertools.pairwise([None, *past.records]), strict=True):
                if after is not None:
                    assert changed(event["changes"]) == difference(before, after)
            if past.records[-1] is not None:
                found = self.apis.query(f"{path}/diff", **{"from": 1, "to": len(past.records)}).json()
                assert changed(found["changes"]) == difference(past.records[0], past.records[-1])

    @invariant()
    def lists_agree(self) -> None:
        now = [past.records[-1] for past in self.pasts.values() if past.records[-1] is not None]
        assert self.listed() == sorted(now, key=lambda record: (record["created_at"], record["id"]))
        for position in sorted({position for past in self.pasts.values() for position in past.positions}):
            then = [record for past in self.pasts.values() if (record := past.at(position)) is not None]
            assert self.listed(at_position=position) == then

    def listed(self, **moment: object) -> list[Record]:
        answer = self.apis.query("/users", role=self.role, limit=200, **moment)
        assert answer.status_code == 200, answer.text
        return answer.json()["users"]

    def agrees(self, answer: httpx.Response, record: Record | None) -> None:
        if record is None:
            assert answer.status_code == 410, answer.text
        else:
            assert (answer.status_code, answer.json()) == (200, record)


def difference(before: Record | None, after: Record) -> dict[str, tuple[Any, Any]]:
    """What two records differ in, told by comparing them, without a look at how the service does it."""
    old = before or dict.fromkeys(after)
    names = after.keys() - {"id", "version", "updated_at"}
    return {name: (old[name], after[name]) for name in names if as_json(old[name]) != as_json(after[name])}


def changed(changes: dict[str, Record]) -> dict[str, tuple[Any, Any]]:
    return {name: (change["old"], change["new"]) for name, change in changes.items()}


def as_json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def test_the_past_agrees_with_a_model_in_memory(apis: Apis) -> None:
    HistoryMachine.apis = apis
    run_state_machine_as_test(  # pyright: ignore[reportUnknownMemberType]
        HistoryMachine,
        settings=settings(
            derandomize=True,
            deadline=None,
            database=None,
            max_examples=20,
            stateful_step_count=10,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
