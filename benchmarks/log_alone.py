"""The log without HTTP: callers that wait on one Writer, each appending again as soon as it is answered.

A process of its own: reads a LogLoad as JSON from stdin, writes a Logged to stdout.
"""

import asyncio
import gc
import json
import secrets
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import uvloop
from load import quantile
from seed import user_numbered

from events.email import canonical_email
from events.keyring import Digester, Kek, Keyring
from events.reader import Reader
from events.recording import Actor, Metadata
from events.user import Change, EventId, User, UserCreated, UserUpdated, changes_between
from events.writer import Append, Appended, Idempotency, Writer
from runtime.database import Session
from runtime.ids import new_id

CALLER = "benchmark"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLoad:
    """`create`: e-mail claim, data key and idempotency key with each. `update`: each caller has a user of its own."""

    database_url: str
    kind: Literal["create", "update"]
    callers: int
    seconds: float
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """Latencies in milliseconds; `cpu` is the share of one core that this process took."""

    count: int
    rate: float
    p50: float
    p99: float
    cpu: float


class _Callers:
    def __init__(self, writer: Writer, *, first: int) -> None:
        self._writer = writer
        self._digester = Digester(secrets.token_bytes(32))
        self._metadata = Metadata(
            actor=Actor(subject=CALLER, kind="service"),
            request_id=str(new_id()),
            correlation_id=str(new_id()),
            causation_id=str(new_id()),
        )
        self._next = first
        self.latencies: list[float] = []

    async def create(self) -> User:
        """One creation, with everything that the command API sends along."""
        n = self._next
        self._next += 1
        user = user_numbered(n, new_id(), datetime.now(UTC))
        event = UserCreated(id=EventId(new_id()), user=user, changes=changes_between(None, user))
        await self._append(
            Append(
                user_id=user.id,
                expected=0,
                event=event,
                metadata=self._metadata,
                idempotency=Idempotency(caller=CALLER, key=f"key-{n}", digest=self._digester.request(user.id.bytes)),
                claim=self._digester.email_keys(canonical_email(user.email)),
            )
        )
        return user

    async def creating(self, deadline: float) -> None:
        while (began := time.perf_counter()) < deadline:
            await self.create()
            self.latencies.append(time.perf_counter() - began)

    async def updating(self, user: User, wrapped: bytes, deadline: float) -> None:
        while (began := time.perf_counter()) < deadline:
            after = replace(
                user,
                version=user.version + 1,
                display_name=f"Name {user.version:012d}",
                updated_at=datetime.now(UTC),
            )
            changes = {"display_name": Change(old=user.display_name, new=after.display_name)}
            await self._append(
                Append(
                    user_id=user.id,
                    expected=user.version,
                    event=UserUpdated(id=EventId(new_id()), user=after, changes=changes),
                    metadata=self._metadata,
                    wrapped=wrapped,
                )
            )
            user = after
            self.latencies.append(time.perf_counter() - began)

    async def _append(self, change: Append) -> None:
        verdict = await self._writer.append(change)
        assert isinstance(verdict, Appended), verdict


async def measured(asked: LogLoad) -> Logged:
    keyring = Keyring(Kek(secrets.token_bytes(32)))
    session = Session(asked.database_url, application="benchmark writer", timeout=30)
    writer = Writer(session, keyring, timeout=30, queue_limit=asked.callers, idempotency_ttl=86400)
    reader = Reader(session, keyring, timeout=30, queue_limit=asked.callers)
    callers = _Callers(writer, first=asked.first)
    users = await asyncio.gather(*(callers.create() for _ in range(asked.callers)))
    loaded = await asyncio.gather(*(reader.load(user.id) for user in users))
    cpu, began = time.process_time(), time.perf_counter()
    deadline = began + asked.seconds
    async with asyncio.TaskGroup() as group:
        for user, found in zip(users, loaded, strict=True):
            assert found is not None
            match asked.kind:
                case "create":
                    group.create_task(callers.creating(deadline))
                case "update":
                    group.create_task(callers.updating(user, found.wrapped, deadline))
    seconds = time.perf_counter() - began
    cpu = (time.process_time() - cpu) / seconds
    await writer.close()
    await reader.close()
    await session.close()
    latencies = sorted(callers.latencies)
    return Logged(
        count=len(latencies),
        rate=len(latencies) / seconds,
        p50=quantile(latencies, 0.5) * 1000,
        p99=quantile(latencies, 0.99) * 1000,
        cpu=cpu,
    )


async def _main() -> None:
    # as in runtime.serving
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    json.dump(asdict(await measured(LogLoad(**json.load(sys.stdin)))), sys.stdout)


if __name__ == "__main__":
    uvloop.run(_main())
