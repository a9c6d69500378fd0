import asyncio
import os
import sys
import threading
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import bcrypt
import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerifyMismatchError
from argon2.low_level import Type

from identity.hashes import UnusableHash
from identity.password_rules import (
    MAX_PASSWORD_LENGTH,
    PasswordContainsEmail,
    PasswordNotUnicode,
    PasswordTooLong,
    PasswordTooShort,
)
from identity.passwords import Passwords, Place
from runtime.failures import Overloaded
from runtime.settings import BadSettings, Settings, settings_from_environment
from tests.databases import CHEAP_ARGON2
from tests.waiting import aeventually

CHEAP: dict[str, Any] = {"database_url": "postgresql://nowhere", **CHEAP_ARGON2}
BCRYPT = bcrypt.hashpw(b"correct horse", b"$2b$04$SodiumChloride.......O").decode()


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(Settings(**CHEAP))
    yield passwords
    passwords.close()


@pytest.fixture
def crowded() -> Iterator[Passwords]:
    passwords = Passwords(Settings(**CHEAP, hashing_queue_limit=2, hashing_threads=1))
    yield passwords
    passwords.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


async def verified(passwords: Passwords, password: str, stored: str | None) -> bool:
    with passwords.reserve() as place:
        return await place.verify(password, stored)


def test_a_new_password_is_held_to_the_rules(passwords: Passwords) -> None:
    passwords.check("zebra-78", email="zoe.quill@example.com")
    with pytest.raises(PasswordTooShort, match="at least 8 characters"):
        passwords.check("zebra-7")
    with pytest.raises(PasswordContainsEmail):
        passwords.check("zoe.quill", email="zoe.quill@example.com")


def test_the_least_length_is_a_setting() -> None:
    strict = Passwords(Settings(**CHEAP, password_min_length=12))
    with pytest.raises(PasswordTooShort, match="at least 12 characters"):
        strict.check("zebra-78901")
    strict.close()


def test_an_imported_hash_is_held_to_what_can_be_verified(passwords: Passwords) -> None:
    passwords.check_imported(BCRYPT)
    with pytest.raises(UnusableHash):
        passwords.check_imported(BCRYPT.replace("$04$", "$31$"))


@pytest.mark.parametrize("length", [73, 200, MAX_PASSWORD_LENGTH])
async def test_the_last_character_of_a_long_password_counts(passwords: Passwords, length: int) -> None:
    password = "x" * length
    stored = await passwords.hash(password)
    assert PasswordHasher().verify(stored, password)
    with pytest.raises(VerifyMismatchError):
        PasswordHasher().verify(stored, password[:-1] + "y")
    with pytest.raises(VerifyMismatchError):
        PasswordHasher().verify(stored, password[:-1])


async def test_a_hash_is_argon2id_with_the_parameters_that_were_set(passwords: Passwords) -> None:
    found = extract_parameters(await passwords.hash("correct horse"))
    assert (found.type, found.memory_cost, found.time_cost, found.parallelism) == (Type.ID, 8, 1, 1)


def test_a_deployment_hashes_as_owasp_asks() -> None:
    settings = settings_from_environment(database_url="postgresql://nowhere")
    assert settings.argon2_memory_kib >= 19 * 1024
    assert settings.argon2_time_cost >= 2


@pytest.mark.parametrize(
    "beyond",
    [{"argon2_memory_kib": 262_145}, {"argon2_time_cost": 17}, {"argon2_memory_kib": 256, "argon2_parallelism": 17}],
)
def test_parameters_whose_hashes_could_not_be_verified_are_refused_from_the_start(beyond: dict[str, Any]) -> None:
    with pytest.raises(BadSettings, match="ARGON2_"):
        settings_from_environment(**(CHEAP | beyond))


async def test_one_password_is_never_hashed_alike(passwords: Passwords) -> None:
    assert await passwords.hash("correct horse") != await passwords.hash("correct horse")


@pytest.mark.parametrize("password", ["correct horse", "schlüßel", "correct\0horse", "🐴🔋📎✅" * 256])
async def test_a_password_is_verified_by_its_own_hash_only(passwords: Passwords, password: str) -> None:
    stored = await passwords.hash(password)
    assert await verified(passwords, password, stored)
    assert not await verified(passwords, password[:-1], stored)
    assert not await verified(passwords, password.swapcase() + "!", stored)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
async def test_a_password_is_the_same_from_every_keyboard(passwords: Passwords, forms: tuple[str, str]) -> None:
    at_first, later = (unicodedata.normalize(form, "schlüssel für zoë") for form in forms)  # pyright: ignore[reportArgumentType]
    assert await verified(passwords, later, await passwords.hash(at_first))


@pytest.mark.parametrize("typed", ["schlu\u0308ssel", "schlüssel"])
async def test_an_imported_hash_verifies_the_password_as_it_was_typed(passwords: Passwords, typed: str) -> None:
    stored = bcrypt.hashpw(typed.encode(), bcrypt.gensalt(4)).decode()
    assert await verified(passwords, typed, stored)
    assert not await verified(passwords, typed + "!", stored)


async def test_without_a_hash_no_password_is_right(passwords: Passwords) -> None:
    assert not await verified(passwords, "correct horse", None)
    assert not await verified(passwords, "", None)


def test_an_unknown_account_costs_what_a_known_one_costs() -> None:
    dearer: dict[str, Any] = {"argon2_memory_kib": 64, "argon2_time_cost": 3}
    passwords = Passwords(Settings(**(CHEAP | dearer)))
    found = extract_parameters(passwords.nobodys_hash)
    assert (found.type, found.memory_cost, found.time_cost, found.parallelism) == (Type.ID, 64, 3, 1)
    assert not passwords.outdated(passwords.nobodys_hash)
    passwords.close()


async def test_where_there_is_no_hash_nobodys_is_verified_instead(threads: ThreadPoolExecutor) -> None:
    with pytest.raises(UnusableHash):
        await Place(PasswordHasher(), "broken", threads).verify("correct horse", None)
    nobodys = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("correct horse")
    assert not await Place(PasswordHasher(), nobodys, threads).verify("correct horse", None)


@pytest.mark.parametrize("password", ["x" * (MAX_PASSWORD_LENGTH + 1), "lone \ud800 surrogate"])
async def test_what_could_be_no_password_is_wrong_whatever_is_stored(passwords: Passwords, password: str) -> None:
    for stored in (await passwords.hash("correct horse"), BCRYPT, None, "broken"):
        assert not await verified(passwords, password, stored)


async def test_what_could_be_no_password_is_not_hashed(passwords: Passwords) -> None:
    with pytest.raises(PasswordTooLong):
        await passwords.hash("x" * (MAX_PASSWORD_LENGTH + 1))
    with pytest.raises(PasswordNotUnicode):
        await passwords.hash("lone \ud800 surrogate")


async def test_a_broken_hash_is_told_from_a_wrong_password(passwords: Passwords) -> None:
    with pytest.raises(UnusableHash):
        await verified(passwords, "correct horse", "broken")


async def test_a_hash_made_with_these_settings_is_up_to_date(passwords: Passwords) -> None:
    assert not passwords.outdated(await passwords.hash("correct horse"))


OTHER_HASHERS = [
    PasswordHasher(time_cost=2, memory_cost=8, parallelism=1),
    PasswordHasher(time_cost=1, memory_cost=16, parallelism=1),
    PasswordHasher(time_cost=1, memory_cost=16, parallelism=2),
    PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, hash_len=16),
    PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, salt_len=8),
    PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, type=Type.I),
    PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, type=Type.D),
]


@pytest.mark.parametrize(
    "stored",
    [
        *(hasher.hash("correct horse", salt=b"salt" * (hasher.salt_len // 4)) for hasher in OTHER_HASHERS),
        BCRYPT,
        "$argon2id$v=16$m=8,t=1,p=1$MTIzNDU2Nzg5MDEyMzQ1Ng$oITkzoDc/DryampHafFUF9s6JTyyPMk7S9kbihdyLs4",
        "$scrypt$ln=8,r=8,p=1$WKs1xljLudd6z9kbY0wpJQ$yCR4iDZYDKv+iEJj6yHY0lv/epnfB6f/w1EbXrsJOuQ",
        "$7$06..../....SodiumChloride$ENlyo6fGw4PCcDBOFepfSZjFUnVatHzCcW55.ZGz3B0",
    ],
)
def test_a_hash_of_another_kind_or_other_parameters_is_outdated(passwords: Passwords, stored: str) -> None:
    assert passwords.outdated(stored)


async def test_more_passwords_than_may_wait_are_refused_at_once(crowded: Passwords) -> None:
    answers = await asyncio.gather(*(crowded.hash("correct horse") for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [str, str, Overloaded, Overloaded, Overloaded]
    assert await crowded.hash("correct horse")


async def test_a_place_is_taken_before_anything_is_hashed_and_serves_several_calls(crowded: Passwords) -> None:
    with crowded.reserve() as first, crowded.reserve():
        with pytest.raises(Overloaded, match="2 passwords are waiting"), crowded.reserve():
            pass
        assert await first.verify("correct horse", BCRYPT)
        assert await first.verify("correct horse", await first.hash("correct horse"))
    assert free_places(crowded) == 2


async def test_a_place_is_free_again_after_any_failure(crowded: Passwords) -> None:
    for _ in range(5):
        with pytest.raises(UnusableHash):
            await verified(crowded, "correct horse", "broken")
        with pytest.raises(PasswordNotUnicode):
            await crowded.hash("lone \ud800 surrogate")
    assert free_places(crowded) == 2


async def test_cancelled_requests_give_their_places_back(crowded: Passwords) -> None:
    for _ in range(20):
        tasks = [asyncio.create_task(crowded.hash("correct horse")) for _ in range(2)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        async def all_free() -> bool:
            return free_places(crowded) == 2

        await aeventually(all_free, what="the places of cancelled requests being free")


class GatedHasher(PasswordHasher):
    """Takes as long to hash as the test says."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.started = threading.Event()
        self.gate = threading.Event()

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        self.started.set()
        assert self.gate.wait(30)
        return super().hash(password, salt=salt)


async def test_a_place_serves_one_call_at_a_time(threads: ThreadPoolExecutor) -> None:
    hasher = GatedHasher()
    place = Place(hasher, "", threads)
    request = asyncio.create_task(place.hash("correct horse"))
    await asyncio.to_thread(hasher.started.wait, 30)
    with pytest.raises(RuntimeError):
        await place.hash("correct horse")
    hasher.gate.set()
    await request
    await place.hash("correct horse")


async def test_a_cancelled_request_keeps_its_place_for_as_long_as_its_thread_works(threads: ThreadPoolExecutor) -> None:
    hasher, released = GatedHasher(), threading.Event()
    place = Place(hasher, "", threads)
    request = asyncio.create_task(place.hash("correct horse"))
    await asyncio.to_thread(hasher.started.wait, 30)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    place.leave(released.set)
    assert not released.is_set()
    hasher.gate.set()
    assert await asyncio.to_thread(released.wait, 30)


async def test_a_cancelled_request_that_no_thread_took_up_is_never_hashed(threads: ThreadPoolExecutor) -> None:
    gate, hasher, released = threading.Event(), GatedHasher(), threading.Event()
    threads.submit(gate.wait, 30)
    place = Place(hasher, "", threads)
    request = asyncio.create_task(place.hash("correct horse"))
    await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    place.leave(released.set)
    assert released.is_set()
    gate.set()
    threads.shutdown(wait=True)
    assert not hasher.started.is_set()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
async def test_hashing_yields_the_cpu_to_requests(passwords: Passwords) -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    known = set(threading.enumerate())
    await passwords.hash("correct horse")
    [hashing] = set(threading.enumerate()) - known
    assert hashing.native_id is not None
    assert os.getpriority(os.PRIO_PROCESS, hashing.native_id) == min(before + 19, 19)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def free_places(passwords: Passwords) -> int:
    """How many can be reserved before Overloaded; gives them all back."""
    free = 0
    with ExitStack() as taken:
        while True:
            try:
                taken.enter_context(passwords.reserve())
            except Overloaded:
                return free
            free += 1
