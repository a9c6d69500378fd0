import asyncio
from typing import Any

import httpx
import psycopg
import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type
from psycopg import sql

from tests.calls import codes, create

Owner = psycopg.Connection[dict[str, Any]]
PASSWORD = "sesame-opens-the-rock"
PERSONAL: dict[str, Any] = {
    "email": "zebedee@quagga.example.com",
    "display_name": "Zebedee Quagga",
    "attributes": {"hobby": "ocarina", "spoon": ["drawer"]},
}
TRACES = ["zebedee", "quagga", "hobby", "ocarina", "spoon", "drawer"]


def log_text(owner: Owner) -> str:
    """All that the log's schema holds, as text, with binary values also shown as the text that they may be."""
    tables = owner.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'log'").fetchall()
    text = ""
    for table in tables:
        rows = owner.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier("log", table["tablename"]))).fetchall()
        for value in (value for row in rows for value in row.values()):
            text += value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text.lower()


async def test_nothing_personal_is_in_the_log_in_the_clear(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands, **PERSONAL, password=PASSWORD)
    path = f"/users/{user['id']}"
    await commands.patch(path, json={"email": "quagga@zebedee.example.com", "attributes": {"spoon": None}})
    await commands.put(path, json={"display_name": None}, headers={"Idempotency-Key": "key-1"})
    await commands.delete(path)
    text = log_text(owner)
    assert user["id"] in text
    assert [trace for trace in TRACES if trace in text] == []


async def test_a_password_is_stored_as_argon2id_outside_the_log(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands, password=PASSWORD)
    stored = owner.execute("SELECT user_id::text AS id, password_hash FROM identity.credentials").fetchall()
    assert [row["id"] for row in stored] == [user["id"]]
    assert extract_parameters(stored[0]["password_hash"]).type is Type.ID
    assert PasswordHasher().verify(stored[0]["password_hash"], PASSWORD)
    text = log_text(owner)
    assert "argon2" not in text
    assert stored[0]["password_hash"].rpartition("$")[2].lower() not in text
    assert PASSWORD not in text


async def test_a_new_password_replaces_the_old_one(commands: httpx.AsyncClient, owner: Owner) -> None:
    user = await create(commands, password="correct horse")
    await commands.patch(f"/users/{user['id']}", json={"password": PASSWORD})
    stored = owner.execute("SELECT password_hash FROM identity.credentials").fetchall()
    assert len(stored) == 1
    assert PasswordHasher().verify(stored[0]["password_hash"], PASSWORD)


@pytest.mark.usefixtures("plain_logs")
async def test_a_password_is_never_answered_or_logged(
    commands: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[Any] = [
        {"email": "zebedee@quagga.example.com", "password": PASSWORD},
        {"email": "zebedee@quagga.example.com", "password": PASSWORD},
        {"email": "no address", "password": PASSWORD},
        {"password": [PASSWORD]},
        {"password": {PASSWORD: PASSWORD}, "attributes": 1},
        {"email": "a@example.com", "password": PASSWORD * 60},
        [PASSWORD],
        PASSWORD,
    ]
    answers = [await commands.post("/users", json=body) for body in sent]
    answers.append(
        await commands.post(
            "/users", content=f'{{"password": "{PASSWORD}" x', headers={"Content-Type": "application/json"}
        )
    )
    assert [answer.status_code for answer in answers] == [201, 409, 422, 422, 422, 422, 422, 422, 400]
    assert [answer for answer in answers if "sesame" in answer.text] == []
    logged = capsys.readouterr()
    assert '"status": 409' in logged.out
    assert "sesame" not in logged.out + logged.err
    assert "quagga" not in logged.out + logged.err


@pytest.mark.usefixtures("plain_logs")
async def test_a_failure_here_is_told_without_its_inside(
    commands: httpx.AsyncClient, owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    user = await create(commands, **PERSONAL)
    owner.execute("UPDATE log.events SET sealed = overlay(sealed PLACING '\\x00' FROM 20)")
    answer = await commands.patch(f"/users/{user['id']}", json={"display_name": "Ada", "password": PASSWORD})
    assert codes(answer, 500) == ["internal_error"]
    assert answer.json().keys() == {"type", "title", "status", "detail", "errors", "request_id"}
    assert [word for word in ("Traceback", "BrokenSeal", "sealed", "File ", ".py") if word in answer.text] == []
    assert answer.headers["x-correlation-id"]
    logged = capsys.readouterr().out
    assert "BrokenSeal" in logged
    assert answer.json()["request_id"] in logged
    assert "sesame" not in logged


@pytest.mark.usefixtures("plain_logs")
async def test_a_broken_user_harms_no_other(commands: httpx.AsyncClient, owner: Owner) -> None:
    broken, *sound = [await create(commands, f"user{n}@example.com") for n in range(4)]
    owner.execute("UPDATE log.events SET sealed = '\\x01' WHERE position = 1")
    answers = await asyncio.gather(*(commands.delete(f"/users/{user['id']}") for user in (broken, *sound)))
    assert [answer.status_code for answer in answers] == [500, 200, 200, 200]
