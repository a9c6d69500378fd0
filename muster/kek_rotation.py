"""`muster keys rotate-kek`: the current KEK wraps what others did, in short transactions, while everything runs."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from events.fitting import keks_in_use
from events.keks import Keks, WrongKey
from events.keyring import open_keyring
from identity.security_log import record
from muster.answers import Answer, Finding
from muster.changing_keys import BATCH, PASSES, changing
from muster.failures import CannotRun, Refused
from muster.progress import shown_progress
from muster.recorded import recorded
from runtime.database import Connection, Row
from runtime.failpoints import failpoint
from runtime.settings import Settings

OPERATION: Final = "keys.rotate-kek"
FIRST: Final = UUID(int=0)

WRAPPED: Final = "SELECT kek_id, count(*) AS keys FROM log.user_keys WHERE wrapped IS NOT NULL GROUP BY kek_id"
SIGNING: Final = "SELECT kid, wrapped, kek_id FROM identity.signing_keys ORDER BY kid"
# of the key that signs checkpoints
TREE: Final = "SELECT wrapped, kek_id FROM log.tree"
REWRAP_TREE: Final = "UPDATE log.tree SET wrapped = %s, kek_id = %s WHERE wrapped = %s"
# tombstones have no key
STRETCH: Final = """
SELECT k.user_id, k.wrapped, k.kek_id FROM log.user_keys k WHERE k.user_id > %s ORDER BY k.user_id LIMIT %s
"""
# only where it is still what was opened: whoever erased or re-wrapped a key meanwhile was right
REWRAP: Final = """
UPDATE log.user_keys k SET wrapped = n.wrapped, kek_id = %s
FROM unnest(%s::uuid[], %s::bytea[], %s::bytea[]) AS n (user_id, known, wrapped)
WHERE k.user_id = n.user_id AND k.wrapped = n.known
"""
REWRAP_SIGNING: Final = "UPDATE identity.signing_keys SET wrapped = %s, kek_id = %s WHERE kid = %s AND wrapped = %s"


@dataclass(slots=True, kw_only=True)
class Rewrapped:
    users: int = 0
    signing: int = 0
    # do not open under the KEK that they name
    damaged: int = 0


def rotate_kek(settings: Settings, operator: str, *, check: bool) -> Answer:
    """What was wrapped anew; of a check how many keys each KEK wraps.

    Raises Refused, CannotRun, BadKey and psycopg's errors.
    """
    return asyncio.run(_rotate(settings, open_keyring(settings).kek, operator, check=check))


async def _rotate(settings: Settings, keks: Keks, operator: str, *, check: bool) -> Answer:
    async with changing(settings, None if check else OPERATION) as connection:
        counts = await _counted(connection)
        if check:
            return _counts(counts, keks)
        if unknown := set(counts) - keks.ids:
            raise CannotRun(keks.lack(unknown), code="wrong_key")
        others = sorted(set(counts) - {keks.id})
        parameters = {"from": others, "to": keks.id}
        async with recorded(settings, operator, OPERATION, parameters, refusals=(Refused,)) as result:
            done = await _rewrap_all(connection, keks, sum(counts[kek_id] for kek_id in others))
            result |= {"users": done.users, "signing_keys": done.signing, "damaged": done.damaged}
            if done.damaged:
                raise Refused(
                    f"{done.damaged} keys do not open under the KEK that they name: they were altered. Restore them"
                    " from a backup, or erase their users; keep the former KEK in KEKS_KNOWN until then",
                    code="damaged",
                )
            # as every start asks: the first who does walks past all that were there before
            if await keks_in_use(connection) - {keks.id}:
                raise _keep_coming(keks)
        record("keys.kek_rotated", kek=keks.id, users=done.users)
        words = [
            f"KEK {keks.id} wraps every key: {result['users']:,} of users and {result['signing_keys']} signing keys",
            "were wrapped anew. Once no process has another as its KEK, the former can go from KEKS_KNOWN everywhere.",
        ]
        return Answer(result={"kek": keks.id, **result}, words=words)


async def _counted(connection: Connection) -> Mapping[str, int]:
    """How many keys each KEK wrapped: the users', and those that sign tokens and checkpoints."""
    rows = await (await connection.execute(WRAPPED)).fetchall()
    counts = {row["kek_id"]: int(row["keys"]) for row in rows}
    for query in (SIGNING, TREE):
        for row in await (await connection.execute(query)).fetchall():
            counts[row["kek_id"]] = counts.get(row["kek_id"], 0) + 1
    return counts


async def _rewrap_all(connection: Connection, keks: Keks, total: int) -> Rewrapped:
    done = Rewrapped()
    with shown_progress("re-wrapping", total) as advanced:
        for _ in range(PASSES):
            before = done.users + done.signing
            done.damaged = 0
            await _rewrap_signing(connection, keks, done)
            await _rewrap_users(connection, keks, done, advanced)
            if done.users + done.signing == before:
                return done
    raise _keep_coming(keks)


def _keep_coming(keks: Keks) -> Refused:
    return Refused(
        f"keys that another KEK wraps keep coming: some process has not {keks.id} as its current one. Restart it with"
        " KEK set to that, then say this again",
        code="keep_coming",
    )


async def _rewrap_users(connection: Connection, keks: Keks, done: Rewrapped, advanced: Callable[[int], None]) -> None:
    """One pass over all users in the order of their ids, so that two who do this wait for each other at most."""
    after = FIRST
    while rows := await (await connection.execute(STRETCH, (after, BATCH))).fetchall():
        after = rows[-1]["user_id"]
        found = _rewrapped(rows, keks, done)
        if found:
            users, known, wrapped = zip(*((row["user_id"], row["wrapped"], new) for row, new in found), strict=True)
            cursor = await connection.execute(REWRAP, (keks.id, list(users), list(known), list(wrapped)))
            done.users += cursor.rowcount
            advanced(done.users + done.signing)
            failpoint("keys.rewrapped")


async def _rewrap_signing(connection: Connection, keks: Keks, done: Rewrapped) -> None:
    rows = await (await connection.execute(SIGNING)).fetchall()
    for row, new in _rewrapped(rows, keks, done):
        cursor = await connection.execute(REWRAP_SIGNING, (new, keks.id, row["kid"], row["wrapped"]))
        done.signing += cursor.rowcount
    trees = await (await connection.execute(TREE)).fetchall()
    for row, new in _rewrapped(trees, keks, done):
        cursor = await connection.execute(REWRAP_TREE, (new, keks.id, row["wrapped"]))
        done.signing += cursor.rowcount


def _rewrapped(rows: Sequence[Row], keks: Keks, done: Rewrapped) -> list[tuple[Row, bytes]]:
    """The keys of these rows that another KEK wrapped, wrapped by the current one."""
    found: list[tuple[Row, bytes]] = []
    for row in rows:
        if row["wrapped"] is not None and row["kek_id"] != keks.id:
            try:
                found.append((row, keks.wrap(keks.unwrap(row["wrapped"], row["kek_id"]))))
            except WrongKey:
                done.damaged += 1
    return found


def _counts(counts: Mapping[str, int], keks: Keks) -> Answer:
    words: list[str] = []
    for kek_id, keys in sorted(counts.items()):
        role = "the current KEK" if kek_id == keks.id else "known" if kek_id in keks.ids else "NOT KNOWN HERE"
        words.append(f"{kek_id} wraps {keys:,} keys: {role}")
    others = sum(keys for kek_id, keys in counts.items() if kek_id != keks.id)
    detail = f"{others:,} keys are wrapped by another KEK than the current one"
    findings = [Finding(code="not_rewrapped", detail=detail)] if others else []
    result = {"kek": keks.id, "known": sorted(keks.ids - {keks.id}), "keys": counts}
    return Answer(result=result, words=words, findings=findings)
