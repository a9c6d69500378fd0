"""`muster erase` and `muster erasures`: a person erased from the command line, and the receipts of all who were."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import orjson

from command_api.decide import UserUnknown
from command_api.erasing import Eraser
from command_api.handling import open_handler
from events import erasures
from events.erasures import Erasure
from events.keyring import open_digester, open_keyring
from events.receipts import receipt_of
from events.recording import Actor, Metadata
from identity.passwords import Passwords
from identity.roles import Scope
from muster.answers import Answer, Finding
from muster.failures import CannotRun, Refused
from muster.kek import check_kek
from muster.recorded import recorded
from muster.target import on_database
from runtime.database import Session
from runtime.ids import new_id
from runtime.settings import Settings

OPERATION: Final = "erase"
OPERATION_AGAIN: Final = "erase.again"
LOOK_EVERY: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A receipt as far as it says who is to be erased, since when and why."""

    user_id: UUID
    requested_at: datetime | None
    metadata: Metadata | None


def erase_person(settings: Settings, user: str, *, operator: str, reason: str | None, wait: float) -> Answer:
    """The receipt. Raises Refused, CannotRun, BadKey, and the failures of runtime.failures."""
    try:
        user_id = UUID(user)
    except ValueError:
        raise CannotRun(f"{user} is no user's id") from None
    erasure = asyncio.run(_erase_person(settings, user_id, operator, reason, wait))
    receipt = receipt_of(erasure, settings)
    words = [orjson.dumps(receipt, option=orjson.OPT_INDENT_2).decode()]
    if erasure.completed_at is not None:
        return Answer(result=receipt, words=words)
    detail = f"not complete within {wait:g} s, but recorded: the command API goes on with it. {_lacking(erasure)}"
    return Answer(result=receipt, words=words, findings=[Finding(code="not_complete", detail=detail.strip())])


def erase_again(settings: Settings, file: Path, *, operator: str, reason: str | None, wait: float) -> Answer:
    """Erase whoever the file lists and the database does not know as erased. Raises as `erase_person`."""
    told = asyncio.run(_erase_again(settings, _lines(file), str(file), operator, reason, wait))
    words = [", ".join(f"{name}: {count:,}" for name, count in told.items())]
    if not told["open"]:
        return Answer(result=told, words=words)
    detail = f"{told['open']} not complete within {wait:g} s, but recorded: the command API goes on with them"
    return Answer(result=told, words=words, findings=[Finding(code="not_complete", detail=detail)])


def receipts(settings: Settings) -> Answer:
    """Raises Unavailable and psycopg's errors."""
    found = [receipt_of(erasure, settings) for erasure in asyncio.run(on_database(settings, erasures.listed))]
    return Answer(result={"erasures": found}, words=[orjson.dumps(receipt).decode() for receipt in found])


async def _erase_person(settings: Settings, user_id: UUID, operator: str, reason: str | None, wait: float) -> Erasure:
    parameters = {"user_id": str(user_id), "reason": reason}
    async with (
        _eraser(settings) as (eraser, session),
        recorded(settings, operator, OPERATION, parameters, refusals=(Refused,)) as result,
    ):
        try:
            await eraser.request(user_id, _by(operator, reason), authority=frozenset(Scope))
        except UserUnknown:
            raise Refused(f"there is no user {user_id}", code="unknown_user") from None
        (erasure,) = await _completed(eraser, session, [user_id], wait)
        result["complete"] = erasure.completed_at is not None
        return erasure


async def _erase_again(
    settings: Settings, lines: Sequence[Line], file: str, operator: str, reason: str | None, wait: float
) -> Mapping[str, int]:
    parameters = {"file": file, "users": len(lines), "reason": reason}
    async with (
        _eraser(settings) as (eraser, session),
        recorded(settings, operator, OPERATION_AGAIN, parameters) as result,
    ):
        already, unknown, erased = 0, 0, list[UUID]()
        for line in lines:
            known = await session.use(lambda c, u=line.user_id: erasures.erasure_of(c, u))
            if known is not None and known.completed_at is not None:
                already += 1
                continue
            metadata = line.metadata or _by(operator, reason)
            try:
                await eraser.request(line.user_id, metadata, authority=frozenset(Scope), requested_at=line.requested_at)
            except UserUnknown:
                # the dump is from before they were created: there is nothing of theirs in it
                unknown += 1
            else:
                erased.append(line.user_id)
        left = [found for found in await _completed(eraser, session, erased, wait) if found.completed_at is None]
        told = {"erased": len(erased), "already": already, "unknown": unknown, "open": len(left)}
        result.update(told)
        return told


@asynccontextmanager
async def _eraser(settings: Settings) -> AsyncGenerator[tuple[Eraser, Session]]:
    keyring, digester = open_keyring(settings), open_digester(settings)
    await on_database(settings, lambda connection: check_kek(connection, keyring.kek))
    passwords = Passwords(settings)
    url = settings.database_url.get_secret_value()
    session = Session(url, application="muster erase", timeout=settings.write_timeout)
    try:
        async with open_handler(
            settings, keyring=keyring, digester=digester, passwords=passwords, committed=lambda: None
        ) as handler:
            eraser = Eraser(
                session, handler, settings=settings, keyring=keyring, digester=digester, erased=lambda: None
            )
            yield eraser, session
    finally:
        await session.close()
        passwords.close()


async def _completed(eraser: Eraser, session: Session, user_ids: Sequence[UUID], wait: float) -> list[Erasure]:
    """How the erasures stand when they are complete, or after so many seconds: the rest is the relay's and time's."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    while True:
        await session.use(erasures.complete)
        found = [await eraser.standing(user_id) for user_id in user_ids]
        if all(one.completed_at is not None for one in found) or loop.time() > deadline:
            return found
        await asyncio.sleep(LOOK_EVERY)


def _lines(file: Path) -> list[Line]:
    try:
        text = file.read_bytes()
    except OSError as error:
        raise CannotRun(f"{file}: {error.strerror}") from None
    return [_line(line, f"{file}, line {number}") for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _line(text: bytes, where: str) -> Line:
    """A receipt, or an id alone. Raises CannotRun."""
    try:
        found: Any = orjson.loads(text) if text.lstrip()[:1] in {b"{", b'"'} else text.decode().strip()
        if isinstance(found, str):
            return Line(user_id=UUID(found), requested_at=None, metadata=None)
        return Line(
            user_id=UUID(found["user_id"]),
            requested_at=datetime.fromisoformat(found["requested_at"]) if "requested_at" in found else None,
            metadata=_metadata(found) if "actor" in found else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CannotRun(f"{where} is neither a receipt of `muster erasures` nor a user's id") from None


def _metadata(receipt: Mapping[str, Any]) -> Metadata:
    return Metadata(
        actor=Actor(**receipt["actor"]),
        request_id=receipt["request_id"],
        correlation_id=receipt["correlation_id"],
        causation_id=receipt["causation_id"],
        reason=receipt.get("reason"),
    )


def _by(operator: str, reason: str | None) -> Metadata:
    request_id = str(new_id())
    return Metadata(
        actor=Actor(subject=operator, kind="operator"),
        request_id=request_id,
        correlation_id=request_id,
        causation_id=request_id,
        reason=reason,
    )


def _lacking(erasure: Erasure) -> str:
    if erasure.erased_at is None:
        return "The key is not destroyed yet."
    return "No relay has published the tombstone yet." if erasure.buried_at is None else ""
