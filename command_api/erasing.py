"""Erasing a person: a saga whose steps are each repeated harmlessly, so that it goes on wherever it was cut off.

1. requested: recorded; from then on log.append takes no change of the user but this saga's own
2. deleted: UserDeleted is appended, unless they are deleted already
3. erased: the data key and all that the database has beside it, in one transaction (migrations/sql/erase.sql)
4. buried: the relay that leads publishes a tombstone for the snapshot (events/relay.py)
5. forgotten: what processes remember is gone by itself (runtime/fleeting.py), then it is complete
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from prometheus_client import Counter, Gauge

from command_api.decide import DeleteUser, UserGone, UserUnknown
from command_api.handler import CommandHandler, KeyWasReused, Outranked, Request
from events import erasures
from events.email import canonical_email
from events.erasures import Erasure
from events.keyring import Digester, Keyring, WrongKey
from events.reader import LoggedRecord, newest_before
from events.recording import Actor, Metadata, Position
from events.sealing import BrokenSeal
from events.user import EventId, UserId
from events.wire import user_from_wire
from events.writer import Idempotency
from identity.guessing import account_keys
from identity.roles import Scope, outranked
from identity.security_log import record
from runtime.database import Connection, Session
from runtime.failpoints import failpoint
from runtime.failures import OutcomeUnknown, Overloaded, Unavailable
from runtime.ids import new_id
from runtime.logs import logger
from runtime.pacing import Backoff
from runtime.settings import Settings

ERASED = Counter("muster_erasures_total", "Persons whose data key this process destroyed")
OPEN = Gauge("muster_erasures_open", "Erasures that are not complete")
OLDEST = Gauge("muster_erasures_oldest_seconds", "Age of the oldest of them")

EVERY: Final = 1.0
AT_ONCE: Final = 100
NEWEST: Final = 2**31 - 1
# what may keep a step from being done now; it is tried again
TROUBLE: Final = (Unavailable, OutcomeUnknown, Overloaded, BrokenSeal, WrongKey, psycopg.Error)

log = logger(__name__)


class Eraser:
    """Carries erasures on: one at a time where it is asked to, and all that are left in `run`.

    Several may do so at the same time. `erased` is called after a key was destroyed. Calls raise the failures of
    runtime.failures.
    """

    def __init__(
        self,
        session: Session,
        handler: CommandHandler,
        *,
        settings: Settings,
        keyring: Keyring,
        digester: Digester,
        erased: Callable[[], None],
    ) -> None:
        self._session = session
        self._handler = handler
        self._settings = settings
        self._keyring = keyring
        self._digester = digester
        self._erased = erased
        # every deletion up to here is in log.erasures, as far as it is due
        self._looked_through = Position(0)

    async def request(
        self,
        user_id: UUID,
        metadata: Metadata,
        *,
        authority: frozenset[Scope],
        idempotency: Idempotency | None = None,
        requested_at: datetime | None = None,
    ) -> Erasure:
        """Record it and do what can be done at once; gives how far that is. What is recorded is done in the end.

        Raises UserUnknown, Outranked and KeyWasReused: then nothing was recorded.
        """
        newest = await self._session.use(lambda connection: erasures.newest_of(connection, user_id))
        if newest is None:
            raise UserUnknown
        if outranked(authority, newest.roles):
            record("access.outranked", subject=metadata.actor.subject, user=str(user_id))
            raise Outranked
        verdict = await self._session.use(
            lambda connection: erasures.request(
                connection,
                user_id,
                metadata,
                requested_at=requested_at,
                idempotency=idempotency,
                ttl=self._settings.idempotency_ttl,
            )
        )
        match verdict:
            case "unknown":
                raise UserUnknown
            case "key_reused":
                raise KeyWasReused
            case "recorded":
                record("user.erasure_requested", subject=str(user_id), by=metadata.actor.subject)
            case "known":
                pass
        failpoint("erasure.requested")
        try:
            return await self.carry_on(UserId(user_id))
        except TROUBLE as error:
            self._tell(user_id, error)
            return await self.standing(user_id)

    async def standing(self, user_id: UUID) -> Erasure:
        found = await self._session.use(lambda connection: erasures.erasure_of(connection, user_id))
        if found is None:
            raise Unavailable(f"the erasure of {user_id} is not recorded")
        return found

    async def carry_on(self, user_id: UserId) -> Erasure:
        """Do the steps up to the destruction of the key. Raises what `TROUBLE` names."""
        erasure = await self.standing(user_id)
        if erasure.erased_at is not None:
            return erasure
        await self._delete(user_id, erasure.metadata)
        failpoint("erasure.deleted")
        known = await self._session.use(lambda connection: self._known(connection, user_id))
        emails = [known["email"]] if known else []
        # while its key is changed, some are still counted by the former one
        accounts = [key for digester in self._digester.all for key in account_keys(digester, user_id, emails)]
        done = await self._session.use(lambda c: erasures.erase(c, user_id, accounts=accounts, known=known))
        failpoint("erasure.erased")
        if done:
            ERASED.inc()
            record("user.erased", subject=str(user_id), by=erasure.metadata.actor.subject)
        self._erased()
        return await self.standing(user_id)

    async def run(self) -> None:
        """Carry on what was left, take up who is due, again and again, until cancelled."""
        backoff = Backoff()
        while True:
            backoff.attempt()
            pause = EVERY
            try:
                await self._take_up_due()
                if not await self._carry_all_on():
                    pause = max(EVERY, backoff.pause())
            except TROUBLE as error:
                log.warning("erasures were not carried on", reason=str(error))
                pause = max(EVERY, backoff.pause())
            except Exception:  # a fault of this code: nothing is passed over, it is tried again, and seen
                log.exception("erasures failed")
                pause = max(EVERY, backoff.pause())
            await asyncio.sleep(pause)

    async def _delete(self, user_id: UserId, metadata: Metadata) -> None:
        newest = await self._session.use(lambda connection: erasures.newest_of(connection, user_id))
        if newest is None or not newest.deleted:
            command = DeleteUser(event_id=EventId(new_id()), at=datetime.now(UTC), versions=None)
            request = Request(
                user_id=user_id, command=command, metadata=metadata, idempotency=None, authority=None, erasing=True
            )
            try:
                await self._handler.handle(request)
            except UserGone:
                # by another process that carries on the same
                log.info("deleted already", user_id=str(user_id))
            except BrokenSeal as error:
                if newest is None:
                    raise
                # what cannot be read is to be erased all the same
                log.warning("deleted by what is in the clear", user_id=str(user_id), reason=str(error))
                state = user_from_wire({**newest.record, "email": "", "display_name": None, "attributes": {}})
                await self._handler.delete_unreadable(state, newest.wrapped, metadata)
            failpoint("erasure.deleting")
            newest = await self._session.use(lambda connection: erasures.newest_of(connection, user_id))
        assert newest is not None  # noqa: S101 - a user has events
        deletion = newest
        await self._session.use(lambda connection: erasures.note_deletion(connection, user_id, deletion))

    async def _known(self, connection: Connection, user_id: UserId) -> dict[str, Any]:
        """The personal values that the user had last; nothing when they cannot be read."""
        found = await newest_before(connection, self._keyring, user_id, NEWEST)
        if not isinstance(found, LoggedRecord) or not isinstance(email := found.record.get("email"), str):
            return {}
        values = {name: found.record.get(name) for name in ("display_name", "attributes")}
        return values | {"email": email, "email_canonical": canonical_email(email)}

    async def _take_up_due(self) -> None:
        """Request the erasure of whoever was deleted ERASE_DELETED_AFTER seconds ago."""
        seconds = self._settings.erase_deleted_after
        if not seconds:
            return
        after = self._looked_through
        found = await self._session.use(lambda connection: erasures.due(connection, after, seconds, AT_ONCE))
        for user_id in found.unknown:
            metadata = _by_itself(seconds)
            verdict = await self._session.use(lambda c, i=user_id, m=metadata: erasures.request(c, i, m))
            if verdict == "recorded":
                record("user.erasure_requested", subject=str(user_id), by=metadata.actor.subject)
        self._looked_through = found.through

    async def _carry_all_on(self) -> bool:
        """Whether nothing stood in the way."""
        went_well = True
        for user_id in await self._session.use(lambda connection: erasures.unfinished(connection, AT_ONCE)):
            try:
                await self.carry_on(user_id)
            except TROUBLE as error:
                # one person's trouble, not the others'
                self._tell(user_id, error)
                went_well = False
        for user_id in await self._session.use(erasures.complete):
            log.info("erasure complete", user_id=str(user_id))
        count, age = await self._session.use(erasures.still_open)
        OPEN.set(count)
        OLDEST.set(age)
        return went_well

    def _tell(self, user_id: UUID, error: Exception) -> None:
        log.warning("an erasure was not carried on", user_id=str(user_id), reason=str(error))


def _by_itself(seconds: int) -> Metadata:
    request_id = str(new_id())
    return Metadata(
        actor=Actor(subject="muster", kind="service"),
        request_id=request_id,
        correlation_id=request_id,
        causation_id=request_id,
        reason=f"deleted {_told(seconds)} ago (ERASE_DELETED_AFTER)",
    )


def _told(seconds: int) -> str:
    day = 86_400
    return f"{seconds} s" if seconds % day else f"{seconds // day} days"
