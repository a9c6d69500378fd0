"""Services that log in with a secret of their own (RFC 6749, section 4.4)."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from psycopg.errors import UniqueViolation

from identity.roles import Scope
from identity.sessions import hash_of
from runtime.database import Connection
from runtime.ids import new_id

# a leaked one can be recognised as what it is
SECRET_PREFIX: Final = "mcs_"  # noqa: S105 - what every secret begins with
SECRET_BYTES: Final = 32
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

INSERT = "INSERT INTO identity.clients (id, name, secret_hash, scopes) VALUES (%s, %s, %s, %s)"
ALL = "SELECT id, name, scopes, created_at, disabled_at FROM identity.clients ORDER BY name"
FIND = "SELECT id, name, scopes, created_at, disabled_at FROM identity.clients WHERE id = %s OR name = %s"
DISABLE = "UPDATE identity.clients SET disabled_at = now() WHERE id = %s AND disabled_at IS NULL RETURNING id"
REPLACE_SECRET = "UPDATE identity.clients SET secret_hash = %s WHERE id = %s AND disabled_at IS NULL RETURNING id"  # noqa: S105 - a statement
REVOKE = "SELECT identity.revoke(%s, true)"


class BadName(Exception):
    """A name is of letters, digits, dots, dashes and underscores, 64 at most, not a mark first; and it is no id."""


class NameTaken(Exception):
    """Another client has the name."""


class ScopeNotForClients(Exception):
    """The scope self is for users: a client has no record of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRecord:
    id: UUID
    name: str
    scopes: Sequence[str]
    created_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSecret:
    """What a client logs in with; only a hash of the secret is kept."""

    client_id: UUID
    client_secret: str


async def create(connection: Connection, name: str, scopes: frozenset[Scope]) -> NewSecret:
    """Raises BadName, NameTaken and ScopeNotForClients."""
    if NAME.fullmatch(name) is None or ID.fullmatch(name) is not None:
        raise BadName
    if Scope.SELF in scopes:
        raise ScopeNotForClients
    made = NewSecret(client_id=new_id(), client_secret=_new_secret())
    parameters = (made.client_id, name, hash_of(made.client_secret), sorted(scopes))
    try:
        await connection.execute(INSERT, parameters)
    except UniqueViolation:
        raise NameTaken from None
    return made


async def all_clients(connection: Connection) -> Sequence[ClientRecord]:
    cursor = await connection.execute(ALL)
    return [ClientRecord(**row) for row in await cursor.fetchall()]


async def find(connection: Connection, name_or_id: str) -> ClientRecord | None:
    identifier = UUID(name_or_id) if ID.fullmatch(name_or_id) is not None else None
    cursor = await connection.execute(FIND, (identifier, name_or_id))
    row = await cursor.fetchone()
    return None if row is None else ClientRecord(**row)


async def disable(connection: Connection, client_id: UUID) -> bool:
    """Let it log in no more, and void its tokens; False when it is disabled already."""
    async with connection.transaction():
        cursor = await connection.execute(DISABLE, (client_id,))
        if await cursor.fetchone() is None:
            return False
        await connection.execute(REVOKE, (client_id,))
    return True


async def rotate(connection: Connection, client_id: UUID) -> NewSecret | None:
    """Give it a new secret in place of the old one, and void its tokens; None when it is disabled."""
    secret = NewSecret(client_id=client_id, client_secret=_new_secret())
    async with connection.transaction():
        cursor = await connection.execute(REPLACE_SECRET, (hash_of(secret.client_secret), client_id))
        if await cursor.fetchone() is None:
            return None
        await connection.execute(REVOKE, (client_id,))
    return secret


def _new_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
