"""How long the lock of the log's head is held: batches of appends, made beforehand, by connections that never rest.

What they append is made by the Writer itself, so that it is what the command API sends. As long as each connection has
its next batch ready, the lock is always held: its time for a batch is the time that went by for each.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, LiteralString, cast

import orjson
import psycopg
from seed import user_numbered

from events.email import canonical_email
from events.keyring import Digester, Kek, Keyring
from events.reader import Reader
from events.recording import Actor, Metadata
from events.user import Change, EventId, User, UserCreated, UserUpdated, changes_between
from events.writer import APPEND, Append, Appended, Idempotency, Noted, Verdict, Writer
from runtime.database import Row, Session
from runtime.ids import new_id

Kind = Literal["create", "update"]
# the same in each round: the log's keys are wrapped with it
KEY = b"benchmark".ljust(32, b"\0")
CALLER = "benchmark"
TIMEOUT = 30.0
CONNECTIONS = 3
# of each size of a batch, how many are sent
BATCHES = {1: 900, 8: 600, 64: 180, 256: 60}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """`seconds`: how long a batch of `size` events holds the lock."""

    kind: Kind
    size: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    user: User
    wrapped: bytes


class _Recorder:
    """In a session's place: keeps the commands of statements that append, and says that nothing was to be changed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.commands: list[dict[str, Any]] = []

    async def fetch(self, query: LiteralString, parameters: Sequence[Any] = (), **_: object) -> list[Row]:
        if query != APPEND:
            return await self._session.fetch(query, parameters)
        commands = orjson.loads(parameters[0])
        self.commands += commands
        return [{"verdict": "noted"}] * len(commands)


def measured_head(database_url: str, batches: Mapping[int, int] = BATCHES) -> list[Held]:
    """As the command API's role, in a database in which no process of Muster is at work."""
    held: list[Held] = []
    known = asyncio.run(_users(database_url, max(size * count for size, count in batches.items())))
    for size, count in batches.items():
        creations = asyncio.run(_recorded(database_url, [_creation() for _ in range(size * count)], size))
        held.append(Held(kind="create", size=size, seconds=_sent(database_url, creations)))
        updates = [_update(one) for one in known[: size * count]]
        # each with its own user: they may come in any order
        held.append(
            Held(
                kind="update",
                size=size,
                seconds=_sent(database_url, asyncio.run(_recorded(database_url, updates, size))),
            )
        )
        known[: size * count] = [
            replace(one, user=replace(one.user, version=one.user.version + 1)) for one in known[: size * count]
        ]
    return held


def _sent(database_url: str, batches: Sequence[Sequence[object]]) -> float:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        connections = [psycopg.connect(database_url, autocommit=True, prepare_threshold=0) for _ in range(CONNECTIONS)]
        try:
            for connection in connections:
                # planned and compiled before anything is timed
                connection.execute(APPEND, ("[]",))

            def send(number: int) -> None:
                for parameters in batches[number::CONNECTIONS]:
                    verdicts = connections[number].execute(APPEND, parameters).fetchall()
                    assert all(row[0] == "appended" for row in verdicts), verdicts

            began = time.perf_counter()
            for done in [pool.submit(send, number) for number in range(CONNECTIONS)]:
                done.result()
            return (time.perf_counter() - began) / len(batches)
        finally:
            for connection in connections:
                connection.close()


async def _recorded(database_url: str, appends: Sequence[Append], size: int) -> list[Sequence[object]]:
    """The Writer's commands for these, `size` in each statement, whatever it would have sent at once."""
    session = Session(database_url, application="benchmark", timeout=TIMEOUT)
    recorder = _Recorder(session)
    writer = _writer(cast("Session", recorder))
    try:
        verdicts: list[Verdict] = await asyncio.gather(*map(writer.append, appends))
        assert verdicts == [Noted()] * len(appends)
    finally:
        await writer.close()
        await session.close()
    commands = recorder.commands
    return [(orjson.dumps(commands[first : first + size]).decode(),) for first in range(0, len(commands), size)]


async def _users(database_url: str, count: int) -> list[_Known]:
    session = Session(database_url, application="benchmark", timeout=TIMEOUT)
    writer = _writer(session)
    reader = Reader(session, Keyring(Kek(KEY)), timeout=TIMEOUT, queue_limit=count)
    try:
        creations = [_creation() for _ in range(count)]
        verdicts = await asyncio.gather(*map(writer.append, creations))
        assert all(isinstance(verdict, Appended) for verdict in verdicts)
        found = await asyncio.gather(*(reader.load(creation.user_id) for creation in creations))
    finally:
        await writer.close()
        await reader.close()
        await session.close()
    return [_Known(user=one.user, wrapped=one.wrapped) for one in found if one is not None]


def _writer(session: Session) -> Writer:
    return Writer(session, Keyring(Kek(KEY)), timeout=TIMEOUT, queue_limit=100_000, idempotency_ttl=86400)


def _creation() -> Append:
    now = datetime.now(UTC)
    user = replace(user_numbered(1, new_id(), now), email=f"head-{new_id()}@example.com")
    return Append(
        user_id=user.id,
        expected=0,
        event=UserCreated(id=EventId(new_id()), user=user, changes=changes_between(None, user)),
        claim=Digester(KEY).email_keys(canonical_email(user.email)),
        **_sent_along(),
    )


def _update(known: _Known) -> Append:
    user = known.user
    after = replace(user, version=user.version + 1, display_name=f"Name {new_id()}", updated_at=datetime.now(UTC))
    changes = {"display_name": Change(old=user.display_name, new=after.display_name)}
    return Append(
        user_id=user.id,
        expected=user.version,
        event=UserUpdated(id=EventId(new_id()), user=after, changes=changes),
        wrapped=known.wrapped,
        **_sent_along(),
    )


def _sent_along() -> dict[str, Any]:
    request = str(new_id())
    return {
        "metadata": Metadata(
            actor=Actor(subject=CALLER, kind="service"),
            request_id=request,
            correlation_id=request,
            causation_id=request,
        ),
        "idempotency": Idempotency(caller=CALLER, key=request, digest=Digester(KEY).request(new_id().bytes)),
    }
