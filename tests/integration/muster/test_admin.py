import base64
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.calls import create
from tests.integration.muster.conftest import MUSTER, Muster
from tests.waiting import eventually

Owner = psycopg.Connection[dict[str, Any]]

EMAIL = "root@example.com"
PASSWORD = "a lighthouse in the fog"
CREATE = ("admin", "create", "--email", EMAIL)


async def token_of(client: httpx.AsyncClient, password: str = PASSWORD, email: str = EMAIL) -> str | None:
    """The access token of a login, None when it is refused."""
    answer = await client.post("/login", data={"username": email, "password": password})
    return answer.json().get("access_token")


def events(owner: Owner) -> list[dict[str, Any]]:
    return owner.execute("SELECT * FROM log.events ORDER BY position").fetchall()


async def test_an_administrator_is_made_through_the_log(
    muster: Muster, commands: httpx.AsyncClient, owner: Owner
) -> None:
    told = await muster(*CREATE, "--display-name", "Root", "--operator", "grace", stdin=f"{PASSWORD}\n")
    assert told.status == 0, told.stderr
    [event] = events(owner)
    assert told.stdout == f"{EMAIL} is an administrator: id {event['user_id']}, position 1\n"
    assert event["type"] == "UserCreated"
    assert event["metadata"]["actor"] == {"subject": "grace", "kind": "operator"}
    assert event["data"]["record"]["roles"] == ["admin", "user"]
    assert PASSWORD not in str(event) + told.stdout + told.stderr

    commands.headers["authorization"] = f"Bearer {await token_of(commands)}"
    another = await create(commands, "another@example.com", roles=["admin"])
    assert (await commands.delete(f"/users/{another['id']}")).status_code == 200


async def test_the_security_log_names_who_was_made_and_nothing_personal(muster: Muster, owner: Owner) -> None:
    told = await muster(*CREATE, "--operator", "grace", stdin=PASSWORD)
    [line] = told.records
    [event] = events(owner)
    assert (line["event"], line["subject"], line["by"]) == ("admin.created", str(event["user_id"]), "grace")
    assert EMAIL not in told.stderr


async def test_the_settings_and_the_password_come_from_files(
    muster: Muster, commands: httpx.AsyncClient, surroundings: dict[str, str], tmp_path: Path
) -> None:
    names = ("DATABASE_URL", "KEK", "EMAIL_INDEX_KEY")
    for name in names:
        (tmp_path / name).write_text(f"{surroundings[name]}\n")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    told = await muster(
        *CREATE,
        "--password-file",
        str(tmp_path / "password"),
        **dict.fromkeys(names),
        **{f"{name}_FILE": str(tmp_path / name) for name in names},
    )
    assert told.status == 0, told.stderr
    assert await token_of(commands) is not None


async def test_a_password_that_is_typed_is_asked_for_twice_and_not_shown(
    surroundings: dict[str, str], commands: httpx.AsyncClient
) -> None:
    terminal, its_end = os.openpty()
    process = subprocess.Popen(  # noqa: ASYNC220 - that it starts is all that is waited for
        [MUSTER, *CREATE],
        env=surroundings,
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        # without a terminal of its own that is the one it asks on
        start_new_session=True,
    )
    os.close(its_end)
    shown = bytearray()

    def read() -> None:
        try:
            while part := os.read(terminal, 4096):
                shown.extend(part)
        except OSError:
            # how a terminal ends
            pass

    reading = threading.Thread(target=read)
    reading.start()
    for number, words in enumerate((PASSWORD, "something else", PASSWORD, PASSWORD), start=1):
        eventually(lambda number=number: shown.count(b": ") >= number + shown.count(b"Error: "), what="the question")
        os.write(terminal, f"{words}\n".encode())
    assert process.wait(timeout=60) == 0, shown
    reading.join()
    os.close(terminal)
    assert b"Error: The two entered values do not match." in shown
    assert PASSWORD.encode() not in shown
    assert b"something else" not in shown
    assert await token_of(commands) is not None


async def test_an_e_mail_address_that_is_taken_is_refused(muster: Muster, owner: Owner) -> None:
    assert (await muster(*CREATE, stdin=PASSWORD)).status == 0
    again = await muster("admin", "create", "--email", EMAIL.upper(), stdin=PASSWORD)
    assert again.refusal == (1, f"muster: another user has the e-mail address {EMAIL.upper()}")
    assert len(events(owner)) == 1


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("short", "the password must have at least 8 characters"),
        ("password1", "the password must not be one of the most common passwords"),
        (f"my {EMAIL}", "the password must not contain the user's e-mail address, nor be the part of it before the @"),
    ],
)
async def test_a_weak_password_is_refused(muster: Muster, owner: Owner, password: str, reason: str) -> None:
    assert (await muster(*CREATE, stdin=password)).refusal == (1, f"muster: {reason}")
    assert events(owner) == []


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("--email", "nobody"), "--email: An email address must have an @-sign."),
        (("--email", EMAIL, "--display-name", "\n"), "--display-name: must have a visible character"),
        (("--email", EMAIL, "--password-file", "/nowhere"), "--password-file: cannot read /nowhere: No such file"),
        (("--email", EMAIL, "--password", PASSWORD), "No such option: --password"),
    ],
)
async def test_what_cannot_be_meant_is_named(
    muster: Muster, owner: Owner, command: tuple[str, ...], reason: str
) -> None:
    status, said = (await muster("admin", "create", *command, stdin=PASSWORD)).refusal
    assert status == 2
    assert reason in said
    assert events(owner) == []


async def test_a_pipe_without_a_password_is_refused(muster: Muster) -> None:
    status, said = (await muster(*CREATE)).refusal
    assert status == 2
    assert said.startswith("muster: stdin holds no password")


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"DATABASE_URL": None}, "muster: no stack runs in "),
        ({"DATABASE_URL_FILE": "/nowhere"}, "muster: DATABASE_URL and DATABASE_URL_FILE are both set: unset one"),
        ({"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "muster: no connection to the database: "),
        ({"KEK": None}, "muster: KEK is not set: "),
        ({"EMAIL_INDEX_KEY": "!"}, "muster: EMAIL_INDEX_KEY is not base64: "),
        ({"KEK": base64.b64encode(os.urandom(32)).decode()}, "muster: this KEK is "),
    ],
)
async def test_a_set_up_that_is_wrong_is_named_in_one_line(
    muster: Muster, owner: Owner, variables: dict[str, str | None], reason: str
) -> None:
    status, said = (await muster(*CREATE, stdin=PASSWORD, **variables)).refusal
    assert status == 2
    assert said.startswith(reason)
    assert "\n" not in said
    assert events(owner) == []
