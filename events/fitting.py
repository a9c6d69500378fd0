"""Whether a process fits the log that it is to work on: its keys are those that the log was written with."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, LiteralString

import psycopg

from events.keks import Keks
from events.keyring import Digester, open_digester, open_keyring
from events.partitioning import check_partitions_setting
from runtime.database import Connection, Session
from runtime.failures import OutcomeUnknown, Unavailable
from runtime.settings import BadSettings, Settings

ASK_TIMEOUT: Final = 2.0
KEKS_IN_USE: Final[LiteralString] = "SELECT u.kek_id FROM log.keks_in_use() AS u (kek_id)"
EMAIL_INDEX: Final[LiteralString] = "SELECT key_id, next_key_id FROM log.email_index"


class UnknownKek(Unavailable):
    """The log has keys of a KEK that this process does not know: it could not read what it goes on with."""


class UnknownIndexKey(Unavailable):
    """The log's e-mail index is made with a key that this process does not know."""


async def check_keks(session: Session, keks: Keks) -> None:
    """Raises UnknownKek, and what a session's `fetch` does."""
    rows = await session.fetch(KEKS_IN_USE)
    if unknown := {row["kek_id"] for row in rows} - keks.ids:
        raise UnknownKek(keks.lack(unknown))


async def keks_in_use(connection: Connection) -> frozenset[str]:
    """The ids of the KEKs that some user's key is wrapped by: as many look-ups as there are of them."""
    cursor = await connection.execute(KEKS_IN_USE)
    return frozenset(row["kek_id"] for row in await cursor.fetchall())


async def email_index(connection: Connection) -> Mapping[str, Any]:
    """`key_id` of the key that the e-mail index is made with, and `next_key_id` of the one to take its place."""
    rows = await (await connection.execute(EMAIL_INDEX)).fetchall()
    return rows[0]


def wrong_index_key(key_id: str | None, digester: Digester) -> str | None:
    """What to say when the log's e-mail index is made with a key that is not known here."""
    if key_id is None or key_id in digester.ids:
        return None
    return (
        f"this e-mail index key is {', nor '.join(one.id for one in digester.all)}, and the log's index is made with"
        f" {key_id}: set EMAIL_INDEX_KEY or EMAIL_INDEX_KEY_FILE to that one, or add it to EMAIL_INDEX_KEYS_KNOWN"
    )


def check_fitting(settings: Settings) -> None:
    """A check for the start of any process. Raises BadSettings for what the log was not written with.

    It costs a few look-ups however long the log is. A database that does not answer passes: a writer asks again before
    it writes, and a reader stops at the first key that it cannot open.
    """
    check_partitions_setting(settings)
    if settings.kek is not None:
        keks = open_keyring(settings).kek
        if unknown := {row["kek_id"] for row in asyncio.run(_asked(settings, KEKS_IN_USE))} - keks.ids:
            raise BadSettings(keks.lack(unknown))


def check_writer_fitting(settings: Settings) -> None:
    """As `check_fitting`, for a process that looks users up by e-mail address too."""
    check_fitting(settings)
    digester = open_digester(settings)
    for row in asyncio.run(_asked(settings, EMAIL_INDEX)):
        if (wrong := wrong_index_key(row["key_id"], digester)) is not None:
            raise BadSettings(wrong)


async def _asked(settings: Settings, query: LiteralString) -> list[dict[str, Any]]:
    session = Session(
        settings.database_url.get_secret_value(), application="muster start", timeout=ASK_TIMEOUT, reads=True
    )
    try:
        return await session.fetch(query)
    except (Unavailable, OutcomeUnknown, psycopg.Error):
        return []
    finally:
        await session.close()
