"""Administrators who are made without one: by a deployment's first start, and by `muster admin create`."""

import asyncio
from typing import Final, LiteralString

import psycopg
from pydantic import SecretStr, ValidationError

from command_api.bodies import CreateUserBody
from command_api.creating import creation_of
from command_api.handler import CommandHandler, EmailIsTaken, Request
from events.recording import Actor, Metadata
from events.user import UserId
from identity.password_rules import PasswordRefused
from identity.passwords import Passwords
from identity.roles import Scope
from identity.security_log import record
from runtime.database import Session
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.ids import new_id
from runtime.logs import logger
from runtime.pacing import Backoff
from runtime.settings import BadSettings, Settings

BY: Final = "first-start"
ROLES: Final = ("admin", "user")
EMPTY: LiteralString = "SELECT 1 FROM log.head WHERE position = 0"

log = logger(__name__)


def administrator(email: str, password: str, display_name: str | None = None) -> CreateUserBody:
    """Raises ValidationError."""
    return CreateUserBody(email=email, display_name=display_name, roles=list(ROLES), password=SecretStr(password))


def creation(body: CreateUserBody, *, by: str, reason: str | None = None) -> Request:
    """The command that makes this user, on the authority of who operates the service."""
    request_id = str(new_id())
    user_id = UserId(new_id())
    return Request(
        user_id=user_id,
        command=creation_of(body, user_id),
        metadata=Metadata(
            actor=Actor(subject=by, kind="operator"),
            request_id=request_id,
            correlation_id=request_id,
            causation_id=request_id,
            reason=reason,
        ),
        idempotency=None,
        authority=frozenset(Scope),
        password=body.password.get_secret_value() if body.password is not None else None,
    )


class FirstAdmin:
    """The administrator whom the settings name: made when, and only when, the log is empty.

    Raises BadSettings for one whom nobody could make.
    """

    def __init__(self, settings: Settings, passwords: Passwords) -> None:
        self._body: CreateUserBody | None = None
        email, password = settings.first_admin_email, settings.first_admin_password
        if email is not None and password is not None:
            self._body = _checked(email, password.get_secret_value(), passwords)
        self.settled = self._body is None

    async def wrong(self) -> str | None:
        """A check for readiness."""
        return None if self.settled else "is not there yet"

    async def settle(self, handler: CommandHandler, database: Session) -> None:
        """Try until the database answers; instances that start together make one administrator between them."""
        backoff = Backoff()
        while self._body is not None and not self.settled:
            backoff.attempt()
            try:
                if await database.fetch(EMPTY):
                    await _make(self._body, handler)
                self.settled = True
            except (Unavailable, OutcomeUnknown, psycopg.Error) as error:
                log.warning("the first administrator is still to be made", reason=str(error))
                await asyncio.sleep(backoff.pause())


async def _make(body: CreateUserBody, handler: CommandHandler) -> None:
    try:
        outcome = await handler.handle(creation(body, by=BY))
    except EmailIsTaken:
        # another instance was faster
        return
    record("admin.created", subject=str(outcome.user.id), by=BY)


def _checked(email: str, password: str, passwords: Passwords) -> CreateUserBody:
    try:
        body = administrator(email, password)
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise BadSettings(f"FIRST_ADMIN_EMAIL: {reason}") from None
    try:
        passwords.check(password, email=body.email)
    except PasswordRefused as error:
        raise BadSettings(f"FIRST_ADMIN_PASSWORD {error}") from None
    return body
