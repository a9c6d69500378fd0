from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from events.email import canonical_email
from events.keyring import Digester
from identity.devices import device_of, new_device
from identity.guessing import Allowance, Guesses, own_account, too_many
from identity.passwords import Passwords
from identity.refresh_tokens import RefreshToken
from identity.refusals import refused
from identity.roles import Scope
from identity.security_log import record
from identity.sessions import Begun, Sessions
from runtime.problems import Fault, Problem
from runtime.settings import Settings

# longer than any e-mail address that a user can have
MAX_USERNAME: Final = 320
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="muster"'}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where a login comes from: the network address, what the program calls itself, and its device token if any."""

    address: str | None
    user_agent: str | None
    device: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """What goes back to the device of a user who logged in."""

    device: str
    allowance: Allowance


class Logins:
    """Exchanges passwords, clients' secrets and refresh tokens for sessions, and says so in the security log.

    What is refused raises a problem with OAuth's error members; Overloaded when too many passwords wait to be hashed.
    """

    def __init__(self, settings: Settings, sessions: Sessions, passwords: Passwords, digester: Digester) -> None:
        self.sessions = sessions
        self._passwords = passwords
        self._digester = digester
        self._guesses = Guesses(settings, digester)

    async def by_password(
        self, username: str, password: str, asked: frozenset[Scope] | None, peer: Peer
    ) -> tuple[Begun, LoggedIn]:
        """Whether the account exists, is disabled or has another password is told by nothing: not even by time."""
        # a place first: who is not served has not failed, and costs as little as can be
        with self._passwords.reserve() as place:
            accounts = self._digester.email_keys(_canonical(username))
            account = accounts[self._digester.id]
            device = device_of(self._digester, account, peer.device)
            known = device or self._formerly_known(accounts, peer.device)
            target = self._guesses.target(account, peer.address, known)
            attempt = await self.sessions.attempt(target, email_keys=accounts)
            allowance = self._guesses.allowance(attempt.remaining, attempt.wait)
            if not attempt.admitted:
                record("login.throttled", account=_short(target.account), address=_short(target.address))
                raise too_many(allowance)
            begun, credential = None, attempt.credential
            verified = await place.verify(password, credential.password_hash if credential is not None else None)
            if verified and credential is not None:
                outdated = self._passwords.outdated(credential.password_hash)
                begun = await self.sessions.begin(
                    credential,
                    upgraded_hash=await place.hash(password) if outdated else None,
                    asked=asked,
                    user_agent=peer.user_agent,
                    target=target,
                )
        if begun is None:
            record(
                "login.refused",
                subject=_text(credential.user_id if credential is not None else None),
                account=_short(target.account),
                address=_short(target.address),
            )
            headers = CHALLENGE | allowance.headers()
            raise refused(401, "invalid_grant", "Invalid username or password", headers=headers)
        record(
            "login.succeeded",
            subject=str(begun.grant.subject),
            session=str(begun.grant.session),
            address=_short(target.address),
        )
        token = peer.device if device is not None and peer.device else new_device(self._digester, account)
        return begun, LoggedIn(device=token, allowance=self._guesses.allowance(self._guesses.per_account, 0))

    async def by_client(
        self, client_id: str, secret: str, asked: frozenset[Scope] | None, peer: Peer, *, basic: bool
    ) -> Begun:
        begun = None
        if (identifier := _uuid(client_id)) is not None:
            begun = await self.sessions.begin_for_client(
                identifier, secret=secret, asked=asked, user_agent=peer.user_agent
            )
        if begun is None:
            record("login.refused", client=_text(identifier))
            challenge = {"WWW-Authenticate": 'Basic realm="muster"'} if basic else CHALLENGE
            raise refused(401, "invalid_client", "Invalid client id or secret", headers=challenge)
        record("login.succeeded", subject=str(begun.grant.subject), session=str(begun.grant.session))
        return begun

    async def by_refresh(self, token: RefreshToken | None) -> Begun:
        """The next token of the family; a token that was used before ends the whole of it."""
        if token is not None:
            refreshed = await self.sessions.refresh(token)
            record(
                f"refresh.{refreshed.verdict}",
                subject=_text(refreshed.subject),
                # a stranger may name any session
                session=str(token.session) if refreshed.subject is not None else None,
            )
            if refreshed.begun is not None:
                return refreshed.begun
        else:
            record("refresh.malformed")
        raise refused(
            401,
            "invalid_grant",
            "The refresh token is not valid, or not any more: log in again.",
            headers=CHALLENGE,
        )

    async def end(self, session: UUID, *, owner: UUID | None, by: str) -> bool:
        ended = await self.sessions.end(session, owner=owner)
        if ended:
            record("session.ended", session=str(session), by=by)
        return ended

    async def end_by_refresh(self, token: RefreshToken | None) -> None:
        subject = await self.sessions.end_by(token) if token is not None else None
        if token is not None and subject is not None:
            record("session.ended", session=str(token.session), by=str(subject))

    async def check_own_password(self, user_id: UUID, password: str, peer: Peer) -> None:
        """Whether somebody who is logged in knows their password; guessing it is slowed down as at the login.

        Raises a 403 problem, and a 429 one.
        """
        target = self._guesses.target(own_account(self._digester, user_id), peer.address)
        with self._passwords.reserve() as place:
            attempt = await self.sessions.attempt(target, email_keys=None)
            allowance = self._guesses.allowance(attempt.remaining, attempt.wait)
            if not attempt.admitted:
                record("password.throttled", subject=str(user_id))
                raise too_many(allowance)
            right = await place.verify(password, await self.sessions.password_hash(user_id))
        if not right:
            record("password.refused", subject=str(user_id))
            fault = Fault(detail="is not your password", code="wrong_password", pointer="#/current_password")
            raise Problem(
                403, "wrong_password", "The current password is wrong.", faults=[fault], headers=allowance.headers()
            )
        await self.sessions.forgive(target)

    def _formerly_known(self, accounts: Mapping[str, bytes], token: str | None) -> bytes | None:
        """The device of a token that was made with another e-mail index key than the current one."""
        found = (device_of(digester, accounts[digester.id], token) for digester in self._digester.others)
        return next(filter(None, found), None)


def _canonical(username: str) -> str:
    return canonical_email(username) if len(username) <= MAX_USERNAME else "@"


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _text(identifier: UUID | None) -> str | None:
    return None if identifier is None else str(identifier)


def _short(key: bytes) -> str:
    """Enough of a keyed digest to see that two lines are about the same."""
    return key[:8].hex()
