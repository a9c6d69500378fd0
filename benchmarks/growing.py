"""What a log of some size costs its users: loads, appends, the relay and the projector, each by itself.

A process of its own beside a stack without relay and projector: reads a Growing as JSON from stdin, writes what each
step took to stdout, as Steps by their names.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO, TypeVar
from uuid import UUID

import psycopg
import uvloop
from footprint import cpu_seconds
from seed import user_numbered
from stack import settings_of

from events.email import canonical_email
from events.keyring import open_digester, open_keyring
from events.reader import Loaded, Reader
from events.recording import Actor, Metadata
from events.relay import Relay
from events.user import Change, EventId, UserCreated, UserId, UserUpdated, changes_between
from events.writer import Append, Appended, Idempotency, Writer
from projector.lanes import LANES
from projector.model_store import ModelStore
from projector.pending_lists import PendingLists
from projector.projector import Projector
from runtime.database import Session
from runtime.ids import new_id
from runtime.logs import configure_logging
from runtime.settings import Settings

T = TypeVar("T")

CALLER = "benchmark"
TIMEOUT = 30.0
WITHIN = 120.0
LOOK_EVERY = 0.005
PUBLISHED = "SELECT coalesce(sum(next_offset), 0), min(position) FROM log.publication WHERE topic = %s"
APPLIED = """
SELECT coalesce(sum(m.next_offset), 0), bool_and(m.next_offset = p.next_offset)
FROM read_model.progress m JOIN log.publication p ON p.partition = m.partition AND p.topic = %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growing:
    """`command` and `projector` are those processes' settings; `pids` the servers' whose time is counted.

    Of the ids in `ids_file`, a line each, `count` are loaded and updated, from the `first`; as many users are made.
    """

    command: Mapping[str, str]
    projector: Mapping[str, str]
    owner_url: str
    pids: Mapping[str, int]
    ids_file: str
    first: int
    count: int
    callers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`cpu`: seconds of processor time that this process and the servers took."""

    count: int
    seconds: float
    cpu: Mapping[str, float]


class _Clock:
    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._began = time.perf_counter()
        self._cpu = self._taken()

    def stopped(self, count: int) -> Step:
        seconds = time.perf_counter() - self._began
        cpu = self._taken()
        return Step(count=count, seconds=seconds, cpu={name: cpu[name] - self._cpu[name] for name in cpu})

    def _taken(self) -> dict[str, float]:
        return {"client": time.process_time(), **cpu_seconds(self._pids)}


class _Log:
    """Callers that each wait for their answer before they ask again, with all that the command API sends along."""

    def __init__(self, asked: Growing, settings: Settings) -> None:
        self._asked = asked
        self._settings = settings
        self._digester = open_digester(settings)
        self._ids = Path(asked.ids_file).read_text().split()
        self._metadata = Metadata(
            actor=Actor(subject=CALLER, kind="service"),
            request_id=str(new_id()),
            correlation_id=str(new_id()),
            causation_id=str(new_id()),
        )

    async def measure(self) -> dict[str, Step]:
        asked, limit = self._asked, self._asked.callers
        url, keyring = self._settings.database_url.get_secret_value(), open_keyring(self._settings)
        session = Session(url, application="benchmark", timeout=TIMEOUT)
        reader = Reader(session, keyring, timeout=TIMEOUT, queue_limit=limit)
        writer = Writer(session, keyring, timeout=TIMEOUT, queue_limit=limit, idempotency_ttl=86400)
        ids = self._ids
        wanted = [UserId(UUID(ids[n % len(ids)])) for n in range(asked.first, asked.first + asked.count)]
        found: list[Loaded] = []

        async def load(user_id: UserId) -> None:
            loaded = await reader.load(user_id)
            assert loaded is not None
            found.append(loaded)

        async def append(change: Append) -> None:
            verdict = await writer.append(change)
            assert isinstance(verdict, Appended), verdict

        steps: dict[str, Step] = {}
        try:
            # connections, plans and, of what they share, pages
            await _by_callers(wanted[:100], load, limit)
            found.clear()
            steps["load"] = await self._step(wanted, load)
            updates = [self._update(loaded) for loaded in found]
            steps["append, update"] = await self._step(updates, append)
            steps["append, create"] = await self._step([self._creation(n) for n in range(asked.count)], append)
        finally:
            await reader.close()
            await writer.close()
            await session.close()
        return steps

    async def _step(self, items: list[T], work: Callable[[T], Awaitable[None]]) -> Step:
        clock = _Clock(self._asked.pids)
        await _by_callers(items, work, self._asked.callers)
        return clock.stopped(len(items))

    def _update(self, loaded: Loaded) -> Append:
        user = loaded.user
        after = replace(user, version=user.version + 1, display_name=f"Name {new_id()}", updated_at=datetime.now(UTC))
        changes = {"display_name": Change(old=user.display_name, new=after.display_name)}
        return Append(
            user_id=user.id,
            expected=user.version,
            event=UserUpdated(id=EventId(new_id()), user=after, changes=changes),
            metadata=self._metadata,
            idempotency=self._idempotency(),
            wrapped=loaded.wrapped,
        )

    def _creation(self, n: int) -> Append:
        user = replace(user_numbered(n, new_id(), datetime.now(UTC)), email=f"growth-{new_id()}@example.com")
        return Append(
            user_id=user.id,
            expected=0,
            event=UserCreated(id=EventId(new_id()), user=user, changes=changes_between(None, user)),
            metadata=self._metadata,
            idempotency=self._idempotency(),
            claim=self._digester.email_keys(canonical_email(user.email)),
        )

    def _idempotency(self) -> Idempotency:
        return Idempotency(caller=CALLER, key=str(new_id()), digest=self._digester.request(new_id().bytes))


async def _by_callers(items: Iterable[T], work: Callable[[T], Awaitable[None]], callers: int) -> None:
    waiting: Iterator[T] = iter(items)

    async def call() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())


@asynccontextmanager
async def _looking(asked: Growing) -> AsyncGenerator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(asked.owner_url, autocommit=True, prepare_threshold=0) as looking:
        yield looking


async def _until(
    asked: Growing, look: Callable[[], Awaitable[tuple[int, bool]]], running: "asyncio.Task[None]"
) -> Step:
    """Time it from the first change of the count until it is told to be complete."""
    count, complete = await look()
    assert not complete
    before = began_at = count
    clock = _Clock(asked.pids)
    async with asyncio.timeout(WITHIN):
        while not complete:
            await asyncio.sleep(LOOK_EVERY)
            assert not running.done(), running
            count, complete = await look()
            if began_at == before and count != before:
                clock, began_at = _Clock(asked.pids), count
    return clock.stopped(count - began_at)


async def relayed(asked: Growing, settings: Settings) -> Step:
    relay = Relay(settings, open_keyring(settings))
    async with _looking(asked) as connection:
        ((head,),) = await (await connection.execute("SELECT position FROM log.head")).fetchall()

        async def look() -> tuple[int, bool]:
            cursor = await connection.execute(PUBLISHED, (settings.events_topic,))
            ((offsets, position),) = await cursor.fetchall()
            return int(offsets), position == head

        running = asyncio.create_task(relay.run())
        try:
            return await _until(asked, look, running)
        finally:
            relay.stop()
            await running


async def projected(asked: Growing, settings: Settings) -> Step:
    url = settings.database_url.get_secret_value()
    writing = [Session(url, application="benchmark projector", timeout=60) for _ in range(LANES)]
    reading = Session(url, application="benchmark projector's log", timeout=60, reads=True)
    store = ModelStore(
        writing,
        reading,
        open_keyring(settings),
        events_topic=settings.events_topic,
        partitions=settings.topic_partitions,
        parked_limit=settings.parked_limit,
    )
    merging = Session(url, application="benchmark projector's merging", timeout=60)
    pending_lists = PendingLists(merging)
    projector = Projector(settings, store, pending_lists)
    async with _looking(asked) as connection:

        async def look() -> tuple[int, bool]:
            ((offsets, same),) = await (await connection.execute(APPLIED, (settings.events_topic,))).fetchall()
            return int(offsets), bool(same)

        running = asyncio.create_task(projector.run())
        tidying = asyncio.create_task(pending_lists.run())
        try:
            return await _until(asked, look, running)
        finally:
            projector.stop()
            await running
            tidying.cancel()
            for session in (*writing, reading, merging):
                await session.close()


async def measured(asked: Growing) -> dict[str, Step]:
    command, projector = settings_of(asked.command), settings_of(asked.projector)
    steps = await _Log(asked, command).measure()
    steps["relay"] = await relayed(asked, command)
    steps["projector"] = await projected(asked, projector)
    return steps


async def _main(answers: TextIO) -> None:
    # as in runtime.serving
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    asked = Growing(**json.load(sys.stdin))
    steps = await measured(asked)
    json.dump({name: asdict(step) for name, step in steps.items()}, answers)


if __name__ == "__main__":
    # stdout is for the answer alone
    answers, sys.stdout = sys.stdout, sys.stderr
    configure_logging("benchmark", "error")
    uvloop.run(_main(answers))
