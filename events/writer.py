from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, assert_never

import orjson
from prometheus_client import Counter, Gauge, Histogram

from events.fitting import UnknownIndexKey, check_keks
from events.keyring import Keyring
from events.recording import Metadata, Position, row_of
from events.user import UserEvent, UserId
from runtime.batching import Batcher
from runtime.database import Row, Session
from runtime.failures import OutcomeUnknown

APPENDED = Counter("muster_log_appended_total", "Events appended by this process")
REFUSED = Counter("muster_log_refused_total", "Commands the log refused", ["verdict"])
BATCH = Histogram(
    "muster_log_batch_commands", "Commands in one append", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
)
HEAD = Gauge("muster_log_head_position", "The newest position this process has seen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """`digest` is keyed and covers the whole request; `caller` keeps one caller's keys apart from another's.

    `former` are its digests with other keys that are known: what was answered before may have been kept with one.
    """

    caller: str
    key: str
    digest: bytes
    former: tuple[bytes, ...] = ()

    def matches(self, digest: bytes) -> bool:
        return digest in {self.digest, *self.former}


# not frozen: with that, making one would take several times as long, and one is made for each write
@dataclass(slots=True, kw_only=True)
class Append:
    """A decided change of one user, for the log to accept or refuse as a whole.

    `event` None changes nothing and only keeps the idempotency key, with the answer that position `seen` stands for.
    `expected` is the version that the decision was made on (0: no such user yet). `claim` is the e-mail to take, as
    events.keyring.Digester.email_keys has it; `release` gives the held one back. `wrapped` is the user's wrapped data
    key, None for a new user. `revoke` makes void what the user was issued before: their access tokens, or their
    sessions with all that belongs to these. `erasing`: it is a step of the user's erasure.
    """

    user_id: UserId
    expected: int
    event: UserEvent | None
    metadata: Metadata
    idempotency: Idempotency | None = None
    seen: Position | None = None
    wrapped: bytes | None = None
    claim: Mapping[str, bytes] | None = None
    release: bool = False
    password_hash: str | None = None
    forget_password: bool = False
    revoke: Literal["tokens", "sessions"] | None = None
    erasing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    position: Position
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Noted:
    """Nothing was to be changed; the idempotency key is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The idempotency key was answered before: the answer stands for `position`."""

    position: Position
    changed: bool


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The idempotency key was answered before, to another request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """The user has moved on from the version that was expected."""

    version: int


@dataclass(frozen=True, slots=True)
class EmailTaken:
    """Another user has the e-mail address."""


@dataclass(frozen=True, slots=True)
class Erased:
    """The user is erased, or about to be: nobody else changes them any more."""


Verdict = Appended | Noted | Replayed | KeyReused | Stale | EmailTaken | Erased

APPEND = "SELECT verdict, position, recorded_at, changed, version FROM log.append(%s::json)"


class Writer:
    """The one writer of this process: gathers the waiting commands into one transaction and one statement.

    An answered append is durable. Callers make sure that no two appends under way share a user or an idempotency key.
    """

    def __init__(
        self, session: Session, keyring: Keyring, *, timeout: float, queue_limit: int, idempotency_ttl: int
    ) -> None:
        self._session = session
        self._keyring = keyring
        self._ttl = idempotency_ttl
        self._fits = False
        self._batcher: Batcher[dict[str, Any], Verdict] = Batcher(
            self._append,
            limit=512,
            queue_limit=queue_limit,
            timeout=timeout,
            overdue=lambda: OutcomeUnknown("the append was not answered in time"),
        )

    @property
    def waiting(self) -> int:
        return self._batcher.waiting

    async def append(self, change: Append, *, timeout: float | None = None) -> Verdict:
        """Raises Overloaded and Unavailable (nothing was written), OutcomeUnknown (it may have been), WrongKey.

        Nothing is written as long as the log has keys of a KEK that is not known here: UnknownKek, an Unavailable.
        """
        return await self._batcher.submit(self._encode(change), timeout=timeout)

    async def close(self) -> None:
        """Write what is waiting, then refuse more."""
        await self._batcher.close()

    def _encode(self, change: Append) -> dict[str, Any]:
        command: dict[str, Any] = {
            "user_id": str(change.user_id),
            "expected": change.expected,
            "seen": change.seen,
        }
        if (idempotency := change.idempotency) is not None:
            command |= {
                "caller": idempotency.caller,
                "key": idempotency.key,
                "digest": "\\x" + idempotency.digest.hex(),
                "former": ["\\x" + digest.hex() for digest in idempotency.former],
                "ttl": self._ttl,
            }
        if change.event is not None:
            command |= row_of(change.event, change.metadata, self._keyring, change.wrapped)
            command["at"] = command["data"]["record"]["updated_at"]
        if change.claim is not None:
            (key_id, claim), *others = ((name, "\\x" + digest.hex()) for name, digest in change.claim.items())
            command |= {"claim": claim, "claim_key": key_id, "other_claims": dict(others)}
        if change.password_hash is not None:
            command["password_hash"] = change.password_hash
        if change.revoke is not None:
            command["revoke"] = change.revoke
        if change.erasing:
            command["erasing"] = True
        command["release"] = change.release
        command["forget_password"] = change.forget_password
        return command

    async def _append(self, commands: Sequence[dict[str, Any]]) -> list[Verdict | Exception]:
        if not self._fits:
            # a start that found the database away could not tell
            await check_keks(self._session, self._keyring.kek)
            self._fits = True
        BATCH.observe(len(commands))
        rows = await self._session.fetch(APPEND, (orjson.dumps(commands).decode(),))
        verdicts = [self._read(row) for row in rows]
        if positions := [verdict.position for verdict in verdicts if isinstance(verdict, Appended)]:
            APPENDED.inc(len(positions))
            HEAD.set(max(positions))
        return verdicts

    def _read(self, row: Row) -> Verdict | Exception:
        if row["verdict"] == "unindexed":
            return UnknownIndexKey("the log's e-mail index is made with a key that is not known here")
        verdict = _verdict(row)
        match verdict:
            case Appended() | Noted() | Replayed():
                pass
            case KeyReused() | Stale() | EmailTaken() | Erased():
                REFUSED.labels(row["verdict"]).inc()
            case _:
                assert_never(verdict)
        return verdict


def _verdict(row: Row) -> Verdict:
    match row["verdict"]:
        case "appended":
            return Appended(position=Position(row["position"]), recorded_at=row["recorded_at"])
        case "noted":
            return Noted()
        case "replayed":
            return Replayed(position=Position(row["position"]), changed=row["changed"])
        case "key_reused":
            return KeyReused()
        case "stale":
            return Stale(version=row["version"] or 0)
        case "claimed":
            return EmailTaken()
        case "erased":
            return Erased()
        case unknown:
            raise ValueError(f"log.append answered {unknown!r}")
