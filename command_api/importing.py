"""Many creations at once: each line of a file by the same rules, as the same command and event as a single one."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from command_api.bodies import CreateUserBody
from command_api.creating import creation_of
from command_api.decide import decide
from command_api.handler import CommandHandler, Outranked, Request
from command_api.refusals import REFUSALS, problem_of
from events.keyring import Digester
from events.recording import Metadata
from events.user import UserId
from events.writer import Idempotency
from identity.passwords import Passwords
from identity.roles import Scope, outranked
from runtime.failures import Overloaded
from runtime.ids import new_id
from runtime.problems import Fault, Problem
from runtime.problems import problem_of as problem_of_failure

T = TypeVar("T")

MAX_LINE: Final = 64 * 1024
# lines that are under way at once: some are judged and sealed while the log writes those before them
AT_ONCE: Final = 512
# passwords of them that wait to be hashed, which takes a core for some 30 ms each: logins are to get in between
HASHED_AT_ONCE: Final = 8
# what is too much at the moment is tried again
PATIENCE: Final = 30.0
PAUSE: Final = 0.2
# a key of the caller's has room for a line's number behind it
LONGEST_KEY: Final = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the file, from 1 on. `record` is None for one that is no JSON; `problem` says so."""

    number: int
    record: Any
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a line: `status` is that of a single creation; 200 when it was only checked, or done before."""

    line: int
    status: int
    user_id: UserId | None = None
    version: int | None = None
    position: int | None = None
    faults: Sequence[Fault] = ()

    def to_json(self) -> bytes:
        """A line of NDJSON."""
        found: dict[str, Any] = {"line": self.line, "status": self.status}
        if self.user_id is not None:
            found |= {"id": str(self.user_id), "version": self.version, "position": self.position}
        if self.faults:
            found["errors"] = [fault.body() for fault in self.faults]
        return orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE)


class Importer:
    """Creates the users of many lines on one caller's authority. `key` makes a repeated file take effect once."""

    def __init__(
        self,
        handler: CommandHandler | None,
        passwords: Passwords,
        digester: Digester,
        *,
        caller: str,
        authority: frozenset[Scope],
        metadata: Metadata,
        key: str | None,
    ) -> None:
        self._handler = handler
        self._passwords = passwords
        self._digester = digester
        self._caller = caller
        self._authority = authority
        self._metadata = metadata
        self._key = key
        self._hashing = asyncio.Semaphore(HASHED_AT_ONCE)

    async def results(self, lines: AsyncIterator[Line]) -> AsyncIterator[Result]:
        """In the order of the lines. Without a handler they are checked, and nothing is written.

        Raises Unavailable and OutcomeUnknown: what was done stays done, and the same file with the same key goes on.
        """
        window: deque[asyncio.Task[Result]] = deque()
        try:
            async for line in lines:
                window.append(asyncio.create_task(self._one(line)))
                if len(window) == AT_ONCE:
                    yield await window.popleft()
            while window:
                yield await window.popleft()
        finally:
            # all of them end before a failure is told: none is under way when the caller hears of it
            await asyncio.gather(*window, return_exceptions=True)

    async def _one(self, line: Line) -> Result:
        try:
            if line.problem is not None:
                raise line.problem
            body = _body(line.record)
            if body.password is not None:
                self._passwords.check(body.password.get_secret_value(), email=body.email)
            if body.password_hash is not None:
                self._passwords.check_imported(body.password_hash.get_secret_value())
            return await self._create(line, body)
        except Problem as problem:
            return Result(line=line.number, status=problem.status_code, faults=problem.faults)
        except REFUSALS as error:
            problem = problem_of(error)
            return Result(line=line.number, status=problem.status_code, faults=problem.faults)

    async def _create(self, line: Line, body: CreateUserBody) -> Result:
        user_id = UserId(new_id())
        command = creation_of(body, user_id)
        if self._handler is None:
            decide(None, command)
            if outranked(self._authority, body.roles):
                raise Outranked
            return Result(line=line.number, status=200)
        idempotency = None
        if self._key is not None:
            record = b"import\0" + orjson.dumps(line.record, option=orjson.OPT_SORT_KEYS)
            idempotency = Idempotency(
                caller=self._caller,
                key=f"{self._key}#{line.number}",
                digest=self._digester.request(record),
                former=self._digester.former_requests(record),
            )
        request = Request(
            user_id=user_id,
            command=command,
            metadata=self._metadata,
            idempotency=idempotency,
            authority=self._authority,
            password=body.password.get_secret_value() if body.password is not None else None,
            password_hash=body.password_hash.get_secret_value() if body.password_hash is not None else None,
        )
        handler = self._handler
        if body.password is None:
            outcome = await _patiently(lambda: handler.handle(request))
        else:
            async with self._hashing:
                outcome = await _patiently(lambda: handler.handle(request))
        return Result(
            line=line.number,
            status=200 if outcome.replayed else 201,
            user_id=outcome.user.id,
            version=outcome.user.version,
            position=outcome.position,
        )


async def lines_of(pieces: AsyncIterator[bytes]) -> AsyncIterator[Line]:
    """The lines of NDJSON that arrives in pieces; blank ones are passed over, and counted."""
    number = 0
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for text in whole:
            number += 1
            if text.strip():
                yield line_of(number, text)
        if len(rest) > MAX_LINE:
            # the beginning of a line that is too long already: no more of it is kept than shows that
            rest = rest[: MAX_LINE + 1]
    if rest.strip():
        yield line_of(number + 1, rest)


def line_of(number: int, text: bytes) -> Line:
    if len(text) > MAX_LINE:
        detail = f"has more than {MAX_LINE} bytes"
        fault = Fault(detail=detail, code="line_too_large", pointer="#")
        return Line(number=number, record=None, problem=Problem(413, "line_too_large", detail, faults=[fault]))
    try:
        return Line(number=number, record=orjson.loads(text))
    except orjson.JSONDecodeError as error:
        detail = f"not valid JSON: {error.msg}"
        fault = Fault(detail=detail, code="malformed_json", pointer="#")
        return Line(number=number, record=None, problem=Problem(400, "malformed_json", detail, faults=[fault]))


def _body(record: object) -> CreateUserBody:
    """Raises a 422 problem as a single creation is answered."""
    try:
        return CreateUserBody.model_validate(record)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
        raise problem_of_failure(RequestValidationError(found)) from None


async def _patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await attempt()
        except Overloaded:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(PAUSE)
