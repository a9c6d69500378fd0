import asyncio
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.low_level import Type

from runtime.failures import Overloaded
from runtime.settings import Settings

# OWASP and NIST SP 800-63B ask for at least 64; the bound only keeps a body's worth of text off the hash
MAX_PASSWORD_LENGTH = 1024


class PasswordTooShort(Exception):
    """The password has fewer characters than PASSWORD_MIN_LENGTH."""


class PasswordTooLong(Exception):
    """The password has more characters than any is taken with; it is never cut."""


class Passwords:
    """Hashes passwords with argon2id (RFC 9106) on a few threads of its own, away from the event loop.

    Raises Overloaded at once when more than `hashing_queue_limit` wait.
    """

    def __init__(self, settings: Settings) -> None:
        self._min_length = settings.password_min_length
        self._hasher = PasswordHasher(
            time_cost=settings.argon2_time_cost,
            memory_cost=settings.argon2_memory_kib,
            parallelism=settings.argon2_parallelism,
            type=Type.ID,
        )
        self._limit = settings.hashing_queue_limit
        self._waiting = 0
        self._threads = ThreadPoolExecutor(settings.hashing_threads, thread_name_prefix="argon2")

    def check(self, password: str) -> None:
        """Raises PasswordTooShort and PasswordTooLong; lengths are in characters (Unicode code points)."""
        if len(password) < self._min_length:
            raise PasswordTooShort(f"must have at least {self._min_length} characters")
        if len(password) > MAX_PASSWORD_LENGTH:
            raise PasswordTooLong(f"must have at most {MAX_PASSWORD_LENGTH} characters")

    async def hash(self, password: str) -> str:
        """The PHC string to store."""
        if self._waiting >= self._limit:
            raise Overloaded(f"{self._waiting} passwords are waiting to be hashed")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._hasher.hash, password)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=True)
