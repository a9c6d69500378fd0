"""A secret that is in a file serves the commands that were there before the others did."""

import signal
import subprocess
from pathlib import Path

import httpx

from tests.calls import create
from tests.databases import MakeSettings
from tests.integration.muster.conftest import MUSTER, Muster
from tests.processes import environment_of
from tests.topics import records_of
from tests.waiting import aeventually


async def test_migrate_finds_the_owners_url_in_a_file(muster: Muster, database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"{database_url}\n")
    told = await muster("migrate", DATABASE_URL=None, DATABASE_URL_FILE=str(file))
    assert (told.status, told.stdout) == (0, "the database is at the newest schema\n")
    status, said = (await muster("migrate", DATABASE_URL_FILE=str(file))).refusal
    assert (status, said) == (2, "muster: DATABASE_URL and DATABASE_URL_FILE are both set: unset one")


async def test_relay_finds_its_url_and_its_key_in_files(
    commands: httpx.AsyncClient, make_settings: MakeSettings, key_files: dict[str, Path], tmp_path: Path
) -> None:
    user = await create(commands)
    settings = make_settings(broker=True)
    environment = environment_of(settings)
    file = tmp_path / "url"
    file.write_text(environment.pop("DATABASE_URL"))
    del environment["KEK"]
    log = tmp_path / "relay.log"
    with log.open("wb") as output:
        relay = subprocess.Popen(  # noqa: ASYNC220 - that it starts is all that is waited for
            [MUSTER, "relay"],
            env={**environment, "DATABASE_URL_FILE": str(file), "KEK_FILE": str(key_files["kek_file"])},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:

        async def leads() -> bool:
            assert relay.poll() is None, log.read_text()
            return "relay leads" in log.read_text()

        await aeventually(leads, what="the relay leads")

        async def published() -> bool:
            return [record.key for record in records_of(settings, settings.events_topic)] == [user["id"]]

        await aeventually(published, what="the event is published")
        relay.send_signal(signal.SIGTERM)
        assert relay.wait(timeout=30) == 0
    finally:
        relay.kill()
        relay.wait()
