"""Logins that last: begun with a password or a client's secret, carried on by refresh tokens, ended at will."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, LiteralString, cast
from uuid import UUID

from events.fitting import UnknownIndexKey
from identity.access_tokens import Grant
from identity.guessing import Target
from identity.refresh_tokens import SECRET_BYTES, RefreshToken
from identity.roles import Scope, scopes_named, scopes_of
from runtime.database import Row
from runtime.database import Session as Database
from runtime.ids import new_id
from runtime.settings import Settings

ATTEMPT: LiteralString = "SELECT admitted, wait, remaining FROM identity.attempt(%s, %s, %s, %s, %s)"
ACCOUNT: LiteralString = """
SELECT x.key_id, found.user_id, found.password_hash, found.changed_at
FROM log.email_index x
LEFT JOIN LATERAL (
    SELECT c.user_id, i.password_hash, i.changed_at
    FROM log.email_claims c JOIN identity.credentials i ON i.user_id = c.user_id
    WHERE c.email_key = ANY(%s) LIMIT 1
) found ON true
"""
UPGRADED: LiteralString = """
SELECT password_hash FROM identity.credentials WHERE user_id = %s AND changed_at = %s AND password_hash <> %s
"""
CREDENTIAL: LiteralString = "SELECT password_hash FROM identity.credentials WHERE user_id = %s"
BEGIN: LiteralString = """
SELECT roles, reflects FROM identity.begin_session(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
BEGIN_FOR_CLIENT: LiteralString = """
WITH client AS (
    SELECT c.id, c.secret_hash, c.scopes, h.number AS reflects
    FROM identity.clients c CROSS JOIN identity.revocation_head h WHERE c.id = %s AND c.disabled_at IS NULL
), begun AS (
    INSERT INTO identity.sessions (id, subject, scopes, reflects, user_agent, created_at, last_used_at, expires_at)
    SELECT %s, id, %s, reflects, %s, now(), now(), now() + make_interval(secs => %s)
    FROM client WHERE secret_hash = %s
)
SELECT secret_hash, scopes, reflects FROM client
"""
REFRESH: LiteralString = """
SELECT verdict, subject, salt, roles, asked, reflects FROM identity.refresh(%s, %s, %s, %s, %s, %s)
"""
END: LiteralString = "SELECT identity.end_session(%s, %s) AS ended"
END_BY_FAMILY: LiteralString = """
SELECT s.subject, identity.end_session(s.id, s.subject) AS ended
FROM identity.sessions s WHERE s.id = %s AND s.family_hash = %s
"""
LIVING: LiteralString = """
SELECT s.id, s.created_at, s.last_used_at, s.expires_at, s.user_agent
FROM identity.sessions s
WHERE s.subject = %s AND s.ended_at IS NULL AND s.expires_at > now()
    AND s.reflects >= coalesce((SELECT r.sessions_number FROM identity.revocations r WHERE r.id = s.subject), 0)
ORDER BY s.created_at DESC LIMIT 200
"""
PURGES: tuple[LiteralString, ...] = (
    # a day longer than they live: who holds an old token is told what became of it
    """
    DELETE FROM identity.sessions WHERE id IN (
        SELECT id FROM identity.sessions WHERE expires_at < now() - interval '1 day'
        ORDER BY expires_at LIMIT 10000 FOR UPDATE SKIP LOCKED
    )
    """,
    # no session is older than SESSION_TTL can be: what ended older ones says nothing any more
    """
    DELETE FROM identity.revocations WHERE id IN (
        SELECT id FROM identity.revocations WHERE revoked_at < now() - interval '91 days'
        ORDER BY revoked_at LIMIT 10000 FOR UPDATE SKIP LOCKED
    )
    """,
    """
    DELETE FROM identity.guesses WHERE key IN (
        SELECT key FROM identity.guesses WHERE last_at < now() - interval '1 day' AND next_at < now()
        ORDER BY last_at LIMIT 10000 FOR UPDATE SKIP LOCKED
    )
    """,
)
MAX_USER_AGENT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a password is verified against; `changed_at` is the same for all hashes that one password had."""

    user_id: UUID
    password_hash: str
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """`wait` is the seconds until the next try may be made, this one or, when it is admitted, the one after it.

    `credential` is None when nobody logs in by this name.
    """

    admitted: bool
    wait: float
    remaining: int
    credential: Credential | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    grant: Grant
    refresh: RefreshToken | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What became of a refresh token; `begun` is None unless the verdict is rotated or repeated."""

    verdict: Literal["rotated", "repeated", "reused", "unknown", "expired", "ended"]
    subject: UUID | None
    begun: Begun | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Living:
    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    user_agent: str | None


class Sessions:
    """Raises Unavailable and OutcomeUnknown, as runtime.database.Session does."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def attempt(self, target: Target, *, email_keys: Mapping[str, bytes] | None) -> Attempt:
        """Count a try of a password, and give what to verify it against when it may be made.

        `email_keys` are the e-mail address as events.keyring.Digester.email_keys has it. Raises UnknownIndexKey.
        """
        settings = self._settings
        counted = (
            await self._database.fetch(
                ATTEMPT,
                (*target.keys, settings.guesses_per_account, settings.guesses_per_address),
            )
        )[0]
        if not counted["admitted"] or email_keys is None:
            return Attempt(**counted)
        # of two keys' digests only one can be there: the index is made with one of them
        found = (await self._database.fetch(ACCOUNT, (list(email_keys.values()),)))[0]
        if (key_id := found.pop("key_id")) is not None and key_id not in email_keys:
            raise UnknownIndexKey(f"the e-mail index is made with the key {key_id}, which is not known here")
        return Attempt(**counted, credential=Credential(**found) if found["user_id"] is not None else None)

    async def forgive(self, target: Target) -> None:
        await self._database.fetch("SELECT identity.forgive(%s, %s, %s)", target.keys)

    async def password_hash(self, user_id: UUID) -> str | None:
        rows = await self._database.fetch(CREDENTIAL, (user_id,))
        return cast("str", rows[0]["password_hash"]) if rows else None

    async def begin(
        self,
        verified: Credential,
        *,
        upgraded_hash: str | None,
        asked: frozenset[Scope] | None,
        user_agent: str | None,
        target: Target,
    ) -> Begun | None:
        """Begin the session of a user whose password was verified; `upgraded_hash` replaces what it was verified by.

        None for a user who is disabled or deleted, or whose password was changed meanwhile.
        """
        token = RefreshToken.first(new_id())

        async def begin(known_hash: str, new_hash: str | None) -> list[Row]:
            return await self._database.fetch(
                BEGIN,
                (
                    token.session,
                    verified.user_id,
                    known_hash,
                    new_hash,
                    _names(asked),
                    token.family_hash,
                    token.secret_hash,
                    self._settings.session_ttl,
                    _agent(user_agent),
                    target.pair,
                    target.account,
                    target.address,
                ),
            )

        rows = await begin(verified.password_hash, upgraded_hash)
        if not rows:
            # another login of theirs may have upgraded the hash of the same password meanwhile
            key = (verified.user_id, verified.changed_at, verified.password_hash)
            if upgraded := await self._database.fetch(UPGRADED, key):
                rows = await begin(upgraded[0]["password_hash"], None)
        return _begun(verified.user_id, rows[0], asked, token) if rows else None

    async def begin_for_client(
        self, client_id: UUID, *, secret: str, asked: frozenset[Scope] | None, user_agent: str | None
    ) -> Begun | None:
        """None for an unknown or disabled client and for a wrong secret.

        A client has no refresh tokens: it has its secret (RFC 6749, section 4.4.3).
        """
        session, hashed = new_id(), hash_of(secret)
        rows = await self._database.fetch(
            BEGIN_FOR_CLIENT,
            (client_id, session, _names(asked), _agent(user_agent), self._settings.access_token_ttl, hashed),
        )
        if not rows or not hmac.compare_digest(rows[0]["secret_hash"], hashed):
            return None
        # a service has no record of its own
        allowed = scopes_named(rows[0]["scopes"]) - {Scope.SELF}
        return Begun(
            grant=Grant(
                subject=client_id,
                client=client_id,
                scopes=allowed if asked is None else allowed & asked,
                session=session,
                reflects=rows[0]["reflects"],
            ),
            refresh=None,
        )

    async def refresh(self, token: RefreshToken) -> Refreshed:
        salt = secrets.token_bytes(SECRET_BYTES)
        row = (
            await self._database.fetch(
                REFRESH,
                (
                    token.session,
                    token.family_hash,
                    token.secret_hash,
                    token.next(salt).secret_hash,
                    salt,
                    self._settings.refresh_grace,
                ),
            )
        )[0]
        begun = None
        if row["verdict"] in {"rotated", "repeated"}:
            asked = None if row["asked"] is None else scopes_named(row["asked"])
            begun = _begun(row["subject"], row, asked, token.next(row["salt"]))
        return Refreshed(verdict=row["verdict"], subject=row["subject"], begun=begun)

    async def end(self, session: UUID, *, owner: UUID | None) -> bool:
        """End a session; with an `owner`, only theirs. False when there is none such."""
        return bool((await self._database.fetch(END, (session, owner)))[0]["ended"])

    async def end_by(self, token: RefreshToken) -> UUID | None:
        """End the session that a refresh token, living or used, belongs to; gives its subject."""
        rows = await self._database.fetch(END_BY_FAMILY, (token.session, token.family_hash))
        return rows[0]["subject"] if rows else None

    async def living(self, subject: UUID) -> Sequence[Living]:
        return [Living(**row) for row in await self._database.fetch(LIVING, (subject,))]


def hash_of(secret: str) -> bytes:
    """Of a client's secret: its 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode(errors="replace")).digest()


def _begun(subject: UUID, row: dict[str, Any], asked: frozenset[Scope] | None, token: RefreshToken) -> Begun:
    allowed = scopes_of(row["roles"])
    return Begun(
        grant=Grant(
            subject=subject,
            client=None,
            scopes=allowed if asked is None else allowed & asked,
            session=token.session,
            reflects=row["reflects"],
        ),
        refresh=token,
    )


def _names(scopes: frozenset[Scope] | None) -> list[str] | None:
    return None if scopes is None else sorted(scopes)


def _agent(user_agent: str | None) -> str | None:
    """What a browser calls itself, for its owner to tell their sessions apart: printable, and not endless."""
    if user_agent is None:
        return None
    return "".join(character for character in user_agent if character.isprintable())[:MAX_USER_AGENT] or None
