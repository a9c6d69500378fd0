"""What this instance knows of the keys it trusts and of what was revoked, and how old that knowledge is."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, LiteralString

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from events.keks import KeyWrapper, WrongKey
from identity.signing_keys import open_key, verifying_key
from runtime.batching import Batcher
from runtime.database import Row, Session
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.logs import logger

# A revocation is heeded within a second of its acknowledgement: knowledge this old is looked up anew before anybody is
# let through on it. Usually it never gets so old.
FRESH_FOR: Final = 0.8
LOOK_EVERY: Final = 0.2
LOOK_TIMEOUT: Final = 2.0

# now() is the time when this began, and it may see what was committed after that
HEAD: Final[LiteralString] = """
SELECT h.number,
    (SELECT json_agg(json_build_array(r.id, r.number)) FROM identity.revocations r
     WHERE r.number > %s AND r.revoked_at > now() - make_interval(secs => %s)) AS revoked,
    (SELECT json_agg(json_build_object(
        'kid', k.kid, 'public_key', encode(k.public_key, 'hex'), 'signs', k.signs_from <= clock_timestamp(),
        'stays', k.verifies_until IS NULL"""
TAIL: Final[LiteralString] = """) ORDER BY k.signs_from, k.kid)
     FROM identity.signing_keys k WHERE k.verifies_until IS NULL OR k.verifies_until > clock_timestamp()) AS keys
FROM identity.revocation_head h
"""
# who only verifies may not read private keys, not even wrapped ones
VERIFIERS_LOOK: Final[LiteralString] = HEAD + TAIL
SIGNERS_LOOK: Final[LiteralString] = HEAD + ", 'wrapped', encode(k.wrapped, 'hex')" + TAIL

log = logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    kid: str
    private: Ed25519PrivateKey


class Trust:
    """Follows the keys and revocations in the database.

    Revocations commit in the order of their numbers, so what is above the last number seen is all that is new. `keep`
    is how many seconds a revocation matters: no access token lives longer. With a `kek` this instance signs as well.
    """

    def __init__(self, session: Session, *, keep: float, kek: KeyWrapper | None = None) -> None:
        self._session = session
        self._keep = keep
        self._kek = kek
        self._query: LiteralString = SIGNERS_LOOK if kek is not None else VERIFIERS_LOOK
        self._looked_at = float("-inf")
        self._void: dict[str, int] = {}
        self._learned: deque[tuple[float, str, int]] = deque()
        self._signer: SigningKey | None = None
        self._staying = False
        self.keys: Mapping[str, bytes] = {}
        self.verifiers: Mapping[str, Ed25519PublicKey] = {}
        self.number = 0
        self._looks: Batcher[None, None] = Batcher(
            self._look, limit=100_000, queue_limit=100_000, timeout=LOOK_TIMEOUT + 0.5
        )

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self._looked_at < FRESH_FOR

    @property
    def signer(self) -> SigningKey:
        """The key that signs now. Raises Unavailable while there is none."""
        if self._signer is None:
            raise Unavailable("there is no signing key yet")
        return self._signer

    def voids(self, subject: str, session: str, reflects: int) -> bool:
        """Whether tokens of this subject or session that reflect no newer revocation are revoked."""
        return self._void.get(session, 0) > reflects or self._void.get(subject, 0) > reflects

    async def look(self) -> None:
        """Know all that was committed before this call; raises Unavailable."""
        await self._looks.submit(None)

    async def follow(self, *, keyless: Callable[[], Awaitable[None]] | None = None) -> None:
        """Keep the knowledge fresh until cancelled; `keyless` is called while every key is to go, or there is none."""
        failing = False
        while True:
            try:
                await self.look()
                if not self._staying and keyless is not None:
                    await keyless()
                    await self.look()
                failing = False
            except Unavailable as error:
                if not failing:
                    log.warning("keys and revocations cannot be read: requests are refused", reason=str(error))
                failing = True
            except Exception:  # whatever it was: on old knowledge nobody is let through, and the next look may go well
                if not failing:
                    log.exception("keys and revocations are not followed")
                failing = True
            await asyncio.sleep(LOOK_EVERY)

    async def wrong(self) -> str | None:
        """A check for readiness."""
        if not self.fresh:
            try:
                await self.look()
            except Unavailable:
                return "keys and revocations are not known"
        signs = self._kek is None or self._signer is not None
        return None if self.keys and signs else "there is no signing key yet"

    async def close(self) -> None:
        await self._looks.close()
        await self._session.close()

    async def _look(self, asked: Sequence[None]) -> list[Exception | None]:
        began = time.monotonic()
        row = await self._read()
        if row["number"] < self.number:
            # the database is another than it was (a restore): nothing that was learned of it counts
            self._void.clear()
            self._learned.clear()
            self.number = 0
            row = await self._read()
        for revoked, number in row["revoked"] or ():
            self._void[revoked] = number
            self._learned.append((began, revoked, number))
        self.number = row["number"]
        self._forget(began)
        self._know(row["keys"] or [])
        self._looked_at = began
        return [None] * len(asked)

    async def _read(self) -> Row:
        try:
            rows = await self._session.fetch(self._query, (self.number, self._keep), timeout=LOOK_TIMEOUT)
        except (OutcomeUnknown, psycopg.Error) as error:
            # a lost answer, which changed nothing; a database that is not migrated yet, or a role without its rights
            raise Unavailable(f"keys and revocations: {error}") from error
        if not rows:
            raise Unavailable("the database has no head of revocations: it is not migrated")
        return rows[0]

    def _forget(self, now: float) -> None:
        while self._learned and now - self._learned[0][0] > self._keep:
            _, revoked, number = self._learned.popleft()
            if self._void.get(revoked) == number:
                del self._void[revoked]

    def _know(self, found: Sequence[Row]) -> None:
        keys = {key["kid"]: bytes.fromhex(key["public_key"]) for key in found}
        self._staying = any(key["stays"] for key in found)
        if keys != self.keys:
            self.keys = keys
            self.verifiers = {kid: verifying_key(public) for kid, public in keys.items()}
        if self._kek is None:
            return
        signing = [key for key in found if key["signs"]]
        if not signing:
            self._signer = None
        elif self._signer is None or self._signer.kid != signing[-1]["kid"]:
            self._signer = _opened(signing[-1], self._kek)


def _opened(key: Row, kek: KeyWrapper) -> SigningKey:
    try:
        return SigningKey(kid=key["kid"], private=open_key(bytes.fromhex(key["wrapped"]), kek))
    except WrongKey as error:
        raise Unavailable(f"signing key {key['kid']}: {error}") from None
