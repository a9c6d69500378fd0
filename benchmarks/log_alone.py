"""The log without HTTP: callers that wait on one Writer, each appending again as soon as it is answered.

A process of its own: reads a LogLoad as JSON from stdin, writes a Logged to stdout. The integrator may run beside the
writer, as it does in the command API.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import uvloop
from load import quantile
from prometheus_client import REGISTRY
from seed import user_numbered

from events.email import canonical_email
from events.keyring import Digester, Kek, Keyring
from events.proofs.integrator import Integrator
from events.reader import Reader
from events.recording import Actor, Metadata, Position
from events.user import Change, EventId, User, UserCreated, UserUpdated, changes_between
from events.writer import Append, Appended, Idempotency, Writer
from runtime.database import Session
from runtime.ids import new_id
from runtime.settings import Settings

CALLER = "benchmark"
# the same in each round: the tree's own key is wrapped with it
KEY = b"benchmark".ljust(32, b"\0")
LOOK_EVERY = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLoad:
    """`create`: e-mail claim, data key and idempotency key with each. `update`: each caller has a user of its own."""

    database_url: str
    kind: Literal["create", "update"]
    callers: int
    seconds: float
    first: int
    # the environment of the integrator that runs beside the writer, if one is to
    integrator: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """Latencies in milliseconds; `cpu` is the share of one core that this process took.

    `signed_p50` and `signed_p99` are from an append's answer to the checkpoint that covers it.
    """

    count: int
    rate: float
    p50: float
    p99: float
    cpu: float
    signed_p50: float | None = None
    signed_p99: float | None = None


class _Callers:
    def __init__(self, writer: Writer, *, first: int) -> None:
        self._writer = writer
        self._digester = Digester(KEY)
        self._metadata = Metadata(
            actor=Actor(subject=CALLER, kind="service"),
            request_id=str(new_id()),
            correlation_id=str(new_id()),
            causation_id=str(new_id()),
        )
        self._next = first
        self.latencies: list[float] = []
        # each position that was answered, and when
        self.answered: list[tuple[Position, float]] = []

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
        self.answered.append((verdict.position, time.perf_counter()))


@asynccontextmanager
async def integrating(asked: LogLoad, keyring: Keyring) -> AsyncGenerator[Integrator | None]:
    if asked.integrator is None:
        yield None
        return
    integrator = Integrator(Settings.model_validate(asked.integrator), keyring)
    running = asyncio.create_task(integrator.run())
    try:
        while integrator.state != "leading":  # noqa: ASYNC110 - it tells no event
            await asyncio.sleep(LOOK_EVERY)
        yield integrator
    finally:
        integrator.stop()
        await running


async def signing(callers: _Callers, delays: list[float]) -> None:
    """Note of each answered position how long after its answer a checkpoint covered it, until cancelled."""
    seen = 0
    while True:
        signed, now = REGISTRY.get_sample_value("muster_checkpoint_size") or 0, time.perf_counter()
        while seen < len(callers.answered) and callers.answered[seen][0] <= signed:
            delays.append(now - callers.answered[seen][1])
            seen += 1
        await asyncio.sleep(LOOK_EVERY)


async def measured(asked: LogLoad) -> Logged:
    keyring = Keyring(Kek(KEY))
    async with integrating(asked, keyring) as integrator:
        return await _measured(asked, keyring, integrator)


async def _measured(asked: LogLoad, keyring: Keyring, integrator: Integrator | None) -> Logged:
    session = Session(asked.database_url, application="benchmark writer", timeout=30)
    writer = Writer(session, keyring, timeout=30, queue_limit=asked.callers, idempotency_ttl=86400)
    reader = Reader(session, keyring, timeout=30, queue_limit=asked.callers)
    callers = _Callers(writer, first=asked.first)
    users = await asyncio.gather(*(callers.create() for _ in range(asked.callers)))
    loaded = await asyncio.gather(*(reader.load(user.id) for user in users))
    callers.answered.clear()
    delays: list[float] = []
    watching = asyncio.create_task(signing(callers, delays)) if integrator is not None else None
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
    if watching is not None:
        while len(delays) < len(callers.answered):  # noqa: ASYNC110 - what is looked at is a metric
            await asyncio.sleep(LOOK_EVERY)
        watching.cancel()
    delays.sort()
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
        signed_p50=quantile(delays, 0.5) * 1000 if delays else None,
        signed_p99=quantile(delays, 0.99) * 1000 if delays else None,
    )


async def _main() -> None:
    # as in runtime.serving
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    json.dump(asdict(await measured(LogLoad(**json.load(sys.stdin)))), sys.stdout)


if __name__ == "__main__":
    uvloop.run(_main())
