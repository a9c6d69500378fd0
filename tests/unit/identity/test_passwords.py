import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerifyMismatchError
from argon2.low_level import Type

from identity.passwords import MAX_PASSWORD_LENGTH, Passwords, PasswordTooLong, PasswordTooShort
from runtime.failures import Overloaded
from runtime.settings import Settings, settings_from_environment
from tests.databases import CHEAP_ARGON2

CHEAP: dict[str, Any] = {"database_url": "postgresql://nowhere", **CHEAP_ARGON2}


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(Settings(**CHEAP))
    yield passwords
    passwords.close()


@pytest.mark.parametrize("length", [8, 64, 65, 200, MAX_PASSWORD_LENGTH])
def test_any_length_from_8_is_taken(passwords: Passwords, length: int) -> None:
    passwords.check("x" * length)


def test_a_short_password_is_refused(passwords: Passwords) -> None:
    with pytest.raises(PasswordTooShort, match="at least 8 characters"):
        passwords.check("x" * 7)


def test_an_endless_password_is_refused_rather_than_cut(passwords: Passwords) -> None:
    with pytest.raises(PasswordTooLong, match="at most 1024 characters"):
        passwords.check("x" * (MAX_PASSWORD_LENGTH + 1))


def test_characters_are_counted_and_not_bytes(passwords: Passwords) -> None:
    passwords.check("schlüßel")
    with pytest.raises(PasswordTooShort):
        passwords.check("schlüße")


def test_the_least_length_is_a_setting() -> None:
    strict = Passwords(Settings(**CHEAP, password_min_length=12))
    with pytest.raises(PasswordTooShort, match="at least 12 characters"):
        strict.check("x" * 11)
    strict.close()


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


async def test_one_password_is_never_hashed_alike(passwords: Passwords) -> None:
    assert await passwords.hash("correct horse") != await passwords.hash("correct horse")


async def test_more_passwords_than_may_wait_are_refused_at_once() -> None:
    passwords = Passwords(Settings(**CHEAP, hashing_queue_limit=2, hashing_threads=1))
    answers = await asyncio.gather(*(passwords.hash("correct horse") for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [str, str, Overloaded, Overloaded, Overloaded]
    assert await passwords.hash("correct horse")
    passwords.close()
