"""`muster keys rotate-email-index`: the index of e-mail addresses gets another key, while everything runs.

Begun, every claim is written with both keys by the processes that know both. Then the claims from before get the second
one too. Finished, the second column takes the first one's place in one transaction. At each moment every claim has the
key that log.email_index names, by which all are judged: no mix of processes lets two users have one address.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from events import operations
from events.email import canonical_email
from events.fitting import email_index, wrong_index_key
from events.keyring import Digester, Keyring, WrongKey, open_digester, open_keyring
from events.reader import NEWEST
from events.recording import record_of
from events.sealing import BrokenSeal
from muster.answers import Answer, Finding
from muster.changing_keys import BATCH, PASSES, changing
from muster.failures import CannotRun, Refused
from muster.progress import Advanced, shown_progress
from muster.recorded import recorded
from runtime.database import Connection, Row
from runtime.failpoints import failpoint
from runtime.settings import Settings

OPERATION: Final = "keys.rotate-email-index"
FIRST: Final = UUID(int=0)
COUNTED: Final = "SELECT count(*) AS claims, count(email_key_next) AS filled FROM log.email_claims"
# appends judge by what it holds: none is under way while the head is locked
HEAD: Final = "SELECT position FROM log.head FOR UPDATE"
BEGIN: Final = "UPDATE log.email_index SET next_key_id = %s WHERE key_id = %s AND next_key_id IS NULL"
ABANDON: Final = "UPDATE log.email_index SET next_key_id = NULL"
STRETCH: Final = """
SELECT c.user_id, c.email_key, c.email_key_next FROM log.email_claims c
WHERE c.user_id > %s ORDER BY c.user_id LIMIT %s
"""
# only where the claim is still of the address that was read
FILL: Final = """
UPDATE log.email_claims c SET email_key_next = n.following
FROM unnest(%s::uuid[], %s::bytea[], %s::bytea[]) AS n (user_id, held, following)
WHERE c.user_id = n.user_id AND c.email_key = n.held AND c.email_key_next IS NULL
"""
EMPTY: Final = "UPDATE log.email_claims SET email_key_next = NULL WHERE user_id = ANY(%s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """From one key to the other."""

    held: Digester
    following: Digester

    @property
    def parameters(self) -> dict[str, str]:
        return {"from": self.held.id, "to": self.following.id}


@dataclass(slots=True, kw_only=True)
class Filled:
    claims: int = 0
    # users whose address nobody can read, or who have claimed another than that of their newest event
    unreadable: int = 0


def fill_email_index(settings: Settings, operator: str) -> Answer:
    """Begin the change, or go on with it. Raises Refused, CannotRun, BadKey, and psycopg's errors."""
    return asyncio.run(_fill(settings, open_keyring(settings), open_digester(settings), operator))


def abandon_email_index(settings: Settings, operator: str) -> Answer:
    """Stay with the key that is in use. Raises Refused, and psycopg's errors."""
    return asyncio.run(_abandon(settings, operator))


def check_email_index(settings: Settings) -> Answer:
    """How many claims lack the next key. Raises Refused, CannotRun, BadKey, and psycopg's errors."""
    return asyncio.run(_check(settings, open_digester(settings)))


async def _fill(settings: Settings, keyring: Keyring, digester: Digester, operator: str) -> Answer:
    async with changing(settings, OPERATION) as connection:
        change = await _begun(connection, digester)
        counts = await counted(connection)
        async with recorded(settings, operator, OPERATION, change.parameters, refusals=(Refused,)) as result:
            filled = await _fill_all(connection, keyring, change, counts["claims"] - counts["filled"])
            result |= {"claims": filled.claims, "unreadable": filled.unreadable}
            if filled.unreadable:
                raise Refused(
                    f"of {filled.unreadable} users the address cannot be read, so their claim stays with the former"
                    " key: mend them (`muster verify model` names their events) or erase them, then say this again"
                )
    words = [
        f"{filled.claims:,} claims got the key {change.following.id}, and every claim has it now. Once every",
        "process knows it (EMAIL_INDEX_KEYS_KNOWN), finish it with --finish, as the database's owner.",
    ]
    return Answer(result={**change.parameters, **result}, words=words)


async def _begun(connection: Connection, digester: Digester) -> Change:
    """The change that is under way, else one to the only other key that is known here."""
    async with connection.transaction():
        await connection.execute(HEAD)
        index = await email_index(connection)
        if index["key_id"] is None:
            raise Refused("nobody has an e-mail address yet: set EMAIL_INDEX_KEY to the new key and be done")
        if (wrong := wrong_index_key(index["key_id"], digester)) is not None:
            raise CannotRun(wrong)
        if index["next_key_id"] is None and index["key_id"] != digester.id:
            # what was finished is not to be turned back by saying it once more
            raise Refused(f"the index is made with {index['key_id']} already: set EMAIL_INDEX_KEY to that key")
        others = digester.ids - {index["key_id"]}
        following = index["next_key_id"] or (next(iter(others)) if len(others) == 1 else None)
        if following is None:
            raise CannotRun(f"set EMAIL_INDEX_KEYS_KNOWN to the one key that is to replace {index['key_id']}")
        if following not in digester.ids:
            raise CannotRun(
                f"the change to the key {following} is under way, which is not known here: set EMAIL_INDEX_KEYS_KNOWN"
                " to it, or end that change with --abandon"
            )
        if index["next_key_id"] is None:
            if (await counted(connection))["filled"]:
                raise Refused("a change that was abandoned has left something: say --abandon once more")
            await connection.execute(BEGIN, (following, index["key_id"]))
    by_id = {one.id: one for one in digester.all}
    return Change(held=by_id[index["key_id"]], following=by_id[following])


async def _fill_all(connection: Connection, keyring: Keyring, change: Change, total: int) -> Filled:
    filled = Filled()
    with shown_progress("filling", total) as advanced:
        for _ in range(PASSES):
            before = filled.claims, filled.unreadable
            filled.unreadable = 0
            await _fill_pass(connection, keyring, change, filled, advanced)
            # whoever changed their address meanwhile is no more among them in the next pass
            if filled.claims == before[0] and filled.unreadable in {0, before[1]}:
                return filled
    raise Refused(
        f"claims without the next key keep coming: some process does not know {change.following.id}. Restart it with"
        " EMAIL_INDEX_KEYS_KNOWN set to that, then say this again"
    )


async def _fill_pass(
    connection: Connection, keyring: Keyring, change: Change, filled: Filled, advanced: Advanced
) -> None:
    after = FIRST
    while rows := await (await connection.execute(STRETCH, (after, BATCH))).fetchall():
        after = rows[-1]["user_id"]
        lacking = {row["user_id"]: row["email_key"] for row in rows if row["email_key_next"] is None}
        if not lacking:
            continue
        newest = await (await connection.execute(NEWEST, (list(lacking),))).fetchall()
        addresses = [(row["user_id"], _address(row, keyring)) for row in newest]
        claims = [
            (user_id, change.held.email_key(address), change.following.email_key(address))
            for user_id, address in addresses
            if address is not None
        ]
        took = 0
        if claims:
            users, held, following = zip(*claims, strict=True)
            cursor = await connection.execute(FILL, (list(users), list(held), list(following)))
            took = cursor.rowcount
        filled.claims += took
        filled.unreadable += len(lacking) - took
        advanced(filled.claims)
        failpoint("keys.claims_filled")


def _address(row: Row, keyring: Keyring) -> str | None:
    try:
        email: str = record_of(row, keyring)["email"]
    except (BrokenSeal, KeyError, WrongKey):
        return None
    return canonical_email(email)


async def _abandon(settings: Settings, operator: str) -> Answer:
    async with changing(settings) as connection:
        async with connection.transaction():
            await connection.execute(HEAD)
            before = await email_index(connection)
            await connection.execute(ABANDON)
            parameters = {"from": before["key_id"], "to": before["next_key_id"], "abandon": True}
            await operations.record(connection, operator, OPERATION, parameters, "done")
        after = FIRST
        while rows := await (await connection.execute(STRETCH, (after, BATCH))).fetchall():
            after = rows[-1]["user_id"]
            if users := _filled(rows):
                await connection.execute(EMPTY, (users,))
    return Answer(result=parameters, words=["the e-mail index stays with its key"])


def _filled(rows: Sequence[Row]) -> list[UUID]:
    return [row["user_id"] for row in rows if row["email_key_next"] is not None]


async def _check(settings: Settings, digester: Digester) -> Answer:
    async with changing(settings) as connection:
        index = await email_index(connection)
        if (wrong := wrong_index_key(index["key_id"], digester)) is not None:
            raise CannotRun(wrong)
        counts = await counted(connection)
    lacking = counts["claims"] - counts["filled"] if index["next_key_id"] is not None else 0
    result = {"key": index["key_id"], "next": index["next_key_id"], "claims": counts["claims"], "lacking": lacking}
    if index["next_key_id"] is None:
        return Answer(
            result=result,
            words=[f"{counts['claims']:,} claims with the key {index['key_id']}; no change is under way"],
        )
    detail = f"{lacking:,} of {counts['claims']:,} claims lack the next key, {index['next_key_id']}"
    return Answer(result=result, words=[detail], findings=[Finding(code="unfilled", detail=detail)] if lacking else [])


async def counted(connection: Connection) -> Row:
    """`claims`, and how many of them are `filled`: have the next key too."""
    return (await (await connection.execute(COUNTED)).fetchall())[0]
