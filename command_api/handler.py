import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, assert_never

from command_api.decide import (
    AttributesTooLarge,
    Command,
    CreateUser,
    DeleteUser,
    UserExists,
    UserGone,
    UserUnknown,
    VersionMismatch,
    decide,
)
from command_api.turns import Turns
from events.email import canonical_email
from events.keyring import Digester, WrongKey
from events.reader import Loaded, Reader
from events.recording import Metadata, Position
from events.sealing import BrokenSeal
from events.user import EventId, Status, User, UserCreated, UserDeleted, UserEvent, UserId, UserUpdated
from events.writer import Append, Appended, EmailTaken, Erased, Idempotency, KeyReused, Noted, Replayed, Stale, Writer
from identity.passwords import Passwords
from identity.roles import Scope, outranked
from identity.security_log import record
from runtime.failpoints import failpoint
from runtime.failures import Overloaded, Unavailable
from runtime.ids import new_id

# a command without If-Match is decided again when another process was faster; each round, one of them wins
MAX_ROUNDS = 50


class EmailIsTaken(Exception):
    """Another user has the e-mail address."""


class Outranked(Exception):
    """The user has, or would have, roles that may do what the caller may not."""


class KeyWasReused(Exception):
    """The idempotency key was used before, with another request."""


class KeyIsBusy(Exception):
    """A request with this idempotency key is under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A command with what surrounds it. `user_id` is a new one for a creation.

    `authority` is what the caller may do, None for a change of their own record. `password` is hashed when the command
    may be carried out; `password_hash` is stored as it is. `proof` raises when the caller has not proved enough; what
    was answered before needs none. `erasing`: it is a step of the user's erasure.
    """

    user_id: UserId
    command: Command
    metadata: Metadata
    idempotency: Idempotency | None
    authority: frozenset[Scope] | None
    password: str | None = None
    password_hash: str | None = None
    proof: Callable[[], Awaitable[None]] | None = None
    erasing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The record after the command and the position that it stands for; `changed` names the fields."""

    user: User
    position: Position
    changed: tuple[str, ...]
    replayed: bool = False


# by the user's state, as far as it can be read, or by the caller's rank: another request may have brought it about
REFUSED = (UserExists, UserUnknown, UserGone, VersionMismatch, AttributesTooLarge, Outranked, BrokenSeal, WrongKey)


class CommandHandler:
    """Takes commands from decision to durable event.

    Every command is answered within `timeout` seconds. Commands of one user go one by one in this process; against
    other processes the log's version check guards, and what it refuses is decided again on the new state.
    """

    def __init__(
        self,
        *,
        reader: Reader,
        writer: Writer,
        passwords: Passwords,
        digester: Digester,
        committed: Callable[[], None],
        timeout: float,
        limit: int,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._passwords = passwords
        self._digester = digester
        self._committed = committed
        self._timeout = timeout
        self._limit = limit
        self._under_way = 0
        self._turns = Turns()
        self._keys: set[tuple[str, str]] = set()

    async def handle(self, request: Request) -> Outcome:
        """Carry out one command.

        Raises what `decide` and the password's rules raise, Outranked, EmailIsTaken, KeyWasReused, KeyIsBusy and the
        failures of runtime.failures.
        """
        if self._under_way >= self._limit:
            raise Overloaded(f"{self._under_way} commands are under way")
        key = None
        if (idempotency := request.idempotency) is not None:
            key = (idempotency.caller, idempotency.key)
            if key in self._keys:
                raise KeyIsBusy
            self._keys.add(key)
        self._under_way += 1
        try:
            return await self._handle(request, asyncio.get_running_loop().time() + self._timeout)
        except Outranked:
            # only now: a repeated request is answered as before, and refused nothing
            record("access.outranked", subject=request.metadata.actor.subject, user=str(request.user_id))
            raise
        finally:
            self._under_way -= 1
            if key is not None:
                self._keys.discard(key)

    async def delete_unreadable(self, state: User, wrapped: bytes | None, metadata: Metadata) -> None:
        """For an erasure alone: delete a user whose newest event does not open, by what it says in the clear.

        Raises UserGone, and Unavailable when the user has moved on meanwhile.
        """
        command = DeleteUser(event_id=EventId(new_id()), at=datetime.now(UTC), versions=None)
        change = Append(
            user_id=state.id,
            expected=state.version,
            event=decide(state, command),
            metadata=metadata,
            wrapped=wrapped,
            release=True,
            forget_password=True,
            revoke="sessions",
            erasing=True,
        )
        verdict = await self._writer.append(change, timeout=self._timeout)
        if not isinstance(verdict, Appended):
            raise Unavailable(f"the deletion was not appended: {type(verdict).__name__}")
        self._committed()

    async def _handle(self, request: Request, deadline: float) -> Outcome:
        """Answer what was answered before as it was then, and carry out what is new."""
        if _costly(request):
            return await self._remembered(request, deadline) or await self._carry_out(request, deadline)
        try:
            # the append finds a key that was answered before, and tells
            return await self._carry_out(request, deadline)
        except REFUSED:
            # what was to be done may have become impossible because it was done
            if (outcome := await self._remembered(request, deadline)) is not None:
                return outcome
            raise

    async def _remembered(self, request: Request, deadline: float) -> Outcome | None:
        """What was answered to the request's idempotency key, if it has one. Raises KeyWasReused."""
        if (idempotency := request.idempotency) is None:
            return None
        remembered = await self._reader.recall(idempotency.caller, idempotency.key, timeout=_left(deadline))
        if remembered is None:
            return None
        if not idempotency.matches(remembered.digest):
            raise KeyWasReused
        return await self._replay(Replayed(position=remembered.position, changed=remembered.changed))

    async def _carry_out(self, request: Request, deadline: float) -> Outcome:
        if request.proof is not None:
            try:
                async with asyncio.timeout(_left(deadline)):
                    await request.proof()
            except TimeoutError:
                raise Overloaded("the caller was not asked for proof in time") from None
        if isinstance(request.command, CreateUser):
            password_hash = await self._hash(request, request.command.email, deadline)
            return await self._round(request, None, password_hash, deadline) or _contended()
        password_hash = request.password_hash
        if request.password is not None:
            # hashed outside the user's turn, and only for who may
            loaded = await self._reader.load(request.user_id, timeout=_left(deadline))
            event = self._decide(request, loaded)
            email = event.user.email if event is not None else ""
            password_hash = await self._hash(request, email, deadline)
        await self._turns.take(request.user_id, timeout=_left(deadline))
        try:
            for _ in range(MAX_ROUNDS):
                loaded = await self._reader.load(request.user_id, timeout=_left(deadline))
                outcome = await self._round(request, loaded, password_hash, deadline)
                if outcome is not None:
                    return outcome
            return _contended()
        finally:
            self._turns.release(request.user_id)

    async def _round(
        self, request: Request, loaded: Loaded | None, password_hash: str | None, deadline: float
    ) -> Outcome | None:
        """Decide on this state and append; None when the user has moved on meanwhile."""
        event = self._decide(request, loaded)
        if event is None and (request.idempotency is None or loaded is None):
            return _unchanged(loaded)
        verdict = await self._writer.append(
            self._append(request, loaded, event, password_hash), timeout=_left(deadline)
        )
        match verdict:
            case Appended():
                return self._appended(request, event, verdict.position)
            case Noted():
                return _unchanged(loaded)
            case Replayed():
                return await self._replay(verdict)
            case KeyReused():
                raise KeyWasReused
            case EmailTaken():
                raise EmailIsTaken
            case Stale():
                return None
            case Erased():
                raise UserGone
            case _:
                assert_never(verdict)

    def _appended(self, request: Request, event: UserEvent | None, position: Position) -> Outcome:
        failpoint("command.committed")
        self._committed()
        if event is None:
            raise ValueError("the log appended an event for a command that has none")
        if (revoked := _voided(event)) is not None:
            record(f"user.{revoked}_revoked", subject=str(request.user_id), by=request.metadata.actor.subject)
        return Outcome(user=event.user, position=position, changed=tuple(event.changes))

    def _decide(self, request: Request, loaded: Loaded | None) -> UserEvent | None:
        state = loaded.user if loaded is not None else None
        event = decide(state, request.command)
        after = event.user if event is not None else state
        # even when nothing would change: the answer shows the record
        roles = {role for user in (state, after) if user is not None for role in user.roles}
        if request.authority is not None and outranked(request.authority, roles):
            raise Outranked
        return event

    async def _hash(self, request: Request, email: str, deadline: float) -> str | None:
        if request.password is None:
            return request.password_hash
        self._passwords.check(request.password, email=email)
        try:
            async with asyncio.timeout(_left(deadline)):
                return await self._passwords.hash(request.password)
        except TimeoutError:
            raise Overloaded("the password was not hashed in time") from None

    def _append(
        self, request: Request, loaded: Loaded | None, event: UserEvent | None, password_hash: str | None
    ) -> Append:
        claim: Mapping[str, bytes] | None = None
        match event:
            case UserCreated():
                claim = self._digester.email_keys(canonical_email(event.user.email))
            case UserUpdated() if "email" in event.changes:
                old, new = (canonical_email(email) for email in (event.changes["email"].old, event.user.email))
                claim = self._digester.email_keys(new) if new != old else None
            case UserUpdated() | UserDeleted() | None:
                pass
        return Append(
            user_id=request.user_id,
            expected=loaded.user.version if loaded is not None else 0,
            event=event,
            metadata=request.metadata,
            idempotency=request.idempotency,
            seen=loaded.position if loaded is not None else None,
            wrapped=loaded.wrapped if loaded is not None else None,
            claim=claim,
            release=isinstance(event, UserDeleted),
            password_hash=password_hash,
            forget_password=isinstance(event, UserDeleted),
            revoke=_voided(event),
            erasing=request.erasing,
        )

    async def _replay(self, replayed: Replayed) -> Outcome:
        """The same answer again, made from the event that it stood for."""
        recorded = await self._reader.at(replayed.position)
        if recorded is None:
            raise Unavailable(f"position {replayed.position} is not in the log")
        event = recorded.event
        if event.user.erased:
            raise UserGone
        changed = tuple(event.changes) if replayed.changed else ()
        return Outcome(user=event.user, position=replayed.position, changed=changed, replayed=True)


def _costly(request: Request) -> bool:
    """Whether finding out that it was done before saves more than a question of its own costs."""
    return request.password is not None or request.proof is not None


def _voided(event: UserEvent | None) -> Literal["tokens", "sessions"] | None:
    """What an event makes void of all that its user was issued before."""
    match event:
        case UserDeleted():
            return "sessions"
        case UserUpdated():
            disabled = "status" in event.changes and event.user.status is not Status.ACTIVE
            if disabled or "password_changed_at" in event.changes:
                return "sessions"
            return "tokens" if "roles" in event.changes else None
        case UserCreated() | None:
            return None
        case _:
            assert_never(event)


def _left(deadline: float) -> float:
    return max(0.001, deadline - asyncio.get_running_loop().time())


def _unchanged(loaded: Loaded | None) -> Outcome:
    if loaded is None:
        raise ValueError("a creation always changes something")
    return Outcome(user=loaded.user, position=loaded.position, changed=())


def _contended() -> Outcome:
    raise Unavailable("other writers of this user were faster every time")
