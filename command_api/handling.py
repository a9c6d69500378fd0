from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from command_api.handler import CommandHandler
from events.keyring import Digester, Keyring
from events.reader import Reader
from events.writer import Writer
from identity.passwords import Passwords
from runtime.database import Session
from runtime.settings import Settings


@asynccontextmanager
async def open_handler(
    settings: Settings, *, keyring: Keyring, digester: Digester, passwords: Passwords, committed: Callable[[], None]
) -> AsyncGenerator[CommandHandler]:
    """A handler on connections of its own; what it has taken on is finished before it closes.

    `committed` is called after each event that was appended.
    """
    url = settings.database_url.get_secret_value()
    timeout, queue_limit = settings.write_timeout, settings.write_queue_limit
    writing = Session(url, application="muster command writer", timeout=timeout)
    reading = Session(url, application="muster command reader", timeout=timeout, reads=True)
    reader = Reader(reading, keyring, timeout=timeout, queue_limit=queue_limit)
    writer = Writer(
        writing, keyring, timeout=timeout, queue_limit=queue_limit, idempotency_ttl=settings.idempotency_ttl
    )
    try:
        yield CommandHandler(
            reader=reader,
            writer=writer,
            passwords=passwords,
            digester=digester,
            committed=committed,
            timeout=timeout,
            limit=queue_limit,
        )
    finally:
        await writer.close()
        await reader.close()
        await writing.close()
        await reading.close()
