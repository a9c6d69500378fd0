"""Keys that take each other's place in a test: what a deployment's settings say of them at each step."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from events.keyring import Digester, Kek
from tests.tokens import EMAIL_INDEX_KEY, KEK

NEW_KEK = hashlib.sha256(b"the next key-encryption key of the tests").digest()
NEW_INDEX_KEY = hashlib.sha256(b"the next e-mail index key of the tests").digest()
OLD, NEW = Kek(KEK), Kek(NEW_KEK)
OLD_INDEX, NEW_INDEX = Digester(EMAIL_INDEX_KEY), Digester(NEW_INDEX_KEY)

Settings = dict[str, Any]


def in_base64(key: bytes) -> str:
    return base64.b64encode(key).decode()


def keks(current: bytes, *known: bytes) -> Settings:
    """Settings with these KEKs, as keywords of make_settings and start_process."""
    return {
        "kek": in_base64(current),
        "kek_file": None,
        "keks_known": "\n".join(map(in_base64, known)) or None,
    }


def index_keys(current: bytes, *known: bytes) -> Settings:
    """Settings with these e-mail index keys."""
    return {
        "email_index_key": in_base64(current),
        "email_index_key_file": None,
        "email_index_keys_known": ",".join(map(in_base64, known)) or None,
    }


def variables(settings: Settings) -> dict[str, str | None]:
    """The same as a command's environment."""
    return {name.upper(): value for name, value in settings.items()}


@asynccontextmanager
async def meanwhile(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> AsyncGenerator[None]:
    """Have work done until the block ends; it is told by the event, and its failure is the test's."""
    enough = asyncio.Event()
    task = asyncio.create_task(work(enough))
    try:
        yield
    finally:
        enough.set()
        await task
