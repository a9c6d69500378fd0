import asyncio
import os
import secrets
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError
from argon2.low_level import Type

from identity.hashes import check_usable, verify
from identity.password_rules import PasswordRefused, check_rules, normalised
from runtime.failures import Overloaded
from runtime.settings import Settings

T = TypeVar("T")


class Place:
    """A place among the passwords that may wait: for one call at a time, within its `Passwords.reserve()`."""

    def __init__(self, hasher: PasswordHasher, nobodys_hash: str, threads: ThreadPoolExecutor) -> None:
        self._hasher = hasher
        self._nobodys_hash = nobodys_hash
        self._threads = threads
        self._work: Future[Any] | None = None

    async def hash(self, password: str) -> str:
        """The PHC string to store. Raises PasswordTooLong and PasswordNotUnicode."""
        return await self._run(partial(self._hasher.hash, normalised(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether `stored` was made of the password. Without one this is False, for the cost of a hash of our own.

        What hash() would refuse is False at once. Raises UnusableHash.
        """
        try:
            ours = normalised(password)
        except PasswordRefused:
            return False
        # a hash from elsewhere may be of the password as typed; nobody's is tried as often, for the same cost
        attempts = dict.fromkeys((ours, password))
        against = self._nobodys_hash if stored is None else stored
        matched = await self._run(lambda: any(verify(against, attempt) for attempt in attempts))
        return matched and stored is not None

    def leave(self, released: Callable[[], None]) -> None:
        """Calls `released` as soon as no thread works for this place, from whatever thread that is found out on."""
        if self._work is None:
            released()
        else:
            self._work.add_done_callback(lambda _: released())

    async def _run(self, work: Callable[[], T]) -> T:
        if self._work is not None and not self._work.done():
            raise RuntimeError("a place is for one password at a time")
        running = self._threads.submit(work)
        self._work = running
        return await asyncio.wrap_future(running)


class Passwords:
    """Hashes passwords with argon2id (RFC 9106) and verifies them, on a few threads of its own.

    Raises UnusableHash when its own hashes would be beyond the bounds of `identity.hashes`.
    """

    def __init__(self, settings: Settings) -> None:
        self._min_length = settings.password_min_length
        self._hasher = PasswordHasher(
            time_cost=settings.argon2_time_cost,
            memory_cost=settings.argon2_memory_kib,
            parallelism=settings.argon2_parallelism,
            type=Type.ID,
        )
        # of a password that nobody has: what is verified where there is no hash, so that this takes as long
        self.nobodys_hash = self._hasher.hash(secrets.token_bytes(32))
        check_usable(self.nobodys_hash)
        self._limit = settings.hashing_queue_limit
        self._places = threading.BoundedSemaphore(self._limit)
        self._threads = ThreadPoolExecutor(
            settings.hashing_threads, thread_name_prefix="passwords", initializer=_yield_to_requests
        )

    def check(self, password: str, *, email: str | None = None) -> None:
        """Raises a PasswordRefused for what is no good as a new password of the user with this address."""
        check_rules(password, min_length=self._min_length, email=email)

    def check_imported(self, password_hash: str) -> None:
        """Raises UnusableHash for what could never be verified here."""
        check_usable(password_hash)

    def outdated(self, stored: str) -> bool:
        """Whether a new hash of the same password would be of another kind or have other parameters."""
        try:
            return self._hasher.check_needs_rehash(stored)
        except InvalidHashError:
            return True

    @contextmanager
    def reserve(self) -> Generator[Place]:
        """A place to hash and verify in. Raises Overloaded at once when `hashing_queue_limit` are taken.

        It stays taken until its thread is done, however early its request was cancelled or timed out.
        """
        if not self._places.acquire(blocking=False):
            raise Overloaded(f"{self._limit} passwords are waiting to be hashed")
        place = Place(self._hasher, self.nobodys_hash, self._threads)
        try:
            yield place
        finally:
            place.leave(self._places.release)

    async def hash(self, password: str) -> str:
        """The PHC string to store. Raises Overloaded, PasswordTooLong and PasswordNotUnicode."""
        with self.reserve() as place:
            return await place.hash(password)

    def close(self) -> None:
        self._threads.shutdown(wait=True)


def _yield_to_requests() -> None:
    # in a flood of logins the threads that hash would take the CPU from the one that answers every other request;
    # only Linux has a priority for each thread
    if sys.platform == "linux":
        thread = threading.get_native_id()
        # relative, as no process may raise its priority; a sandbox that forbids even this must not stop the hashing
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + 19)
