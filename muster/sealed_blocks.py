"""A population's blocks as lines of COPY, sealed by several processes."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

import orjson

from events.email import canonical_email
from events.keyring import open_digester, open_keyring
from events.recording import Actor, Metadata, row_of
from events.user import UserId
from muster.population import Block, Population
from runtime.settings import Settings

ACTOR: Final = Actor(subject="muster seed", kind="operator")


@dataclass(frozen=True, slots=True)
class Sealed:
    """A block as lines of COPY: `events` lack position and recorded_at, in whose place is when they were decided."""

    events: Sequence[tuple[datetime, bytes]]
    keys: bytes
    claims: bytes


@contextmanager
def sealed_blocks(settings: Settings, population: Population, workers: int) -> Generator[Iterator[Sealed]]:
    """The blocks in order, sealed ahead by as many processes; by this one if that is enough."""
    numbers = iter(range(population.blocks))
    if min(workers, population.blocks) == 1:
        sealer = _Sealer(settings, population)
        yield map(sealer.sealed, numbers)
        return
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawning, initializer=_start_worker, initargs=(settings, population)) as pool:
        # what is sealed and not yet written is in memory
        ahead = deque(pool.submit(_seal, number) for number in islice(numbers, workers + 1))

        def in_order() -> Iterator[Sealed]:
            while ahead:
                sealed = ahead.popleft().result()
                ahead.extend(pool.submit(_seal, number) for number in islice(numbers, 1))
                yield sealed

        try:
            yield in_order()
        finally:
            _cancel(ahead)


def _cancel(ahead: deque[Future[Sealed]]) -> None:
    for future in ahead:
        future.cancel()


class _Sealer:
    def __init__(self, settings: Settings, population: Population) -> None:
        self._keyring = open_keyring(settings)
        self._digester = open_digester(settings)
        self._population = population

    def sealed(self, number: int) -> Sealed:
        events: list[tuple[datetime, bytes]] = []
        wrapped: dict[UserId, bytes] = {}
        emails: dict[UserId, str] = {}
        for happening in Block(self._population, number).happenings():
            event = happening.event
            user = event.user
            row = row_of(event, _metadata(str(happening.request)), self._keyring, wrapped.get(user.id))
            if "wrapped" in row:
                wrapped[user.id] = bytes.fromhex(row["wrapped"].removeprefix("\\x"))
            emails[user.id] = user.email
            if user.deleted_at is not None:
                del emails[user.id]
            events.append((user.updated_at, _line(user.id, user.version, row)))
        return Sealed(
            events=events,
            keys=b"".join(
                f"{user_id}\t\\\\x{key.hex()}\t{self._keyring.kek_id}\n".encode() for user_id, key in wrapped.items()
            ),
            claims=b"".join(
                f"\\\\x{self._digester.email_key(canonical_email(email)).hex()}\t{user_id}\n".encode()
                for user_id, email in emails.items()
            ),
        )


def _metadata(request_id: str) -> Metadata:
    return Metadata(actor=ACTOR, request_id=request_id, correlation_id=request_id, causation_id=request_id)


def _line(user_id: UserId, version: int, row: Mapping[str, Any]) -> bytes:
    """In the text format of COPY, where only backslashes need a second one: JSON has no raw tab or line end."""
    columns = (
        f"{user_id}\t{version}\t{row['type']}\t{row['schema']}\t{row['event_id']}".encode(),
        orjson.dumps(row["data"]),
        row["sealed"].encode(),
        orjson.dumps(row["metadata"]),
    )
    return b"\t".join(columns).replace(b"\\", b"\\\\") + b"\n"


_sealers: list[_Sealer] = []


def _start_worker(settings: Settings, population: Population) -> None:
    # Ctrl-C is the parent's to handle; a parent that was killed leaves nobody to work for
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _sealers.append(_Sealer(settings, population))


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _seal(number: int) -> Sealed:
    return _sealers[0].sealed(number)
